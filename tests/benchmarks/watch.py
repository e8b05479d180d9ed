"""The job as the command runs it, watched: when each batch was finished."""

import time

from rich.console import Console

from infra import settings
from pipelines.catalog import job
from pipelines.catalog.counts import Counts
from pipelines.catalog.progress import Meter


class Watch(Meter):
    """A meter that notes when each batch was finished."""

    finished: list[tuple[float, int]]

    def __enter__(self) -> "Watch":
        self.finished = []
        super().__enter__()
        return self

    def add(self, counts: Counts) -> None:
        super().add(counts)
        if counts.done:
            self.finished.append((time.perf_counter(), counts.done))

    def rate(self, workers: int) -> float:
        """Images per second in the steady state: every actor has had its first batch, and none has had its last."""
        steady = self.finished[workers - 1 : len(self.finished) - workers + 1]
        return sum(done for _, done in steady[1:]) / (steady[-1][0] - steady[0][0])


def watched(options: job.Options, kind: type[Watch] = Watch) -> tuple[Watch, job.Summary]:
    """Do the job as the command does it: what its meter saw, and the summary."""
    seen: list[Watch] = []

    class Seen(kind):  # type: ignore[misc, valid-type]
        def __enter__(self) -> Watch:
            seen.append(self)
            return super().__enter__()

    environment, meter, job.Meter = settings.from_environment(), job.Meter, Seen  # type: ignore[misc]
    try:
        summary = job.run(job.prepare(options, environment), options, environment, Console(quiet=True))
    finally:
        job.Meter = meter  # type: ignore[misc]
    return seen[0], summary
