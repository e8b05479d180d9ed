"""How a running job shows itself on stderr: a bar on a terminal, a line now and then anywhere else."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.catalog.counts import Counts

SECONDS_BETWEEN_LINES = 10
SECONDS_TO_SETTLE = 2  # before the rate of editing can be told from that of loading


class Meter:
    """Counts what a job has finished. A context manager; `add` is called with the counts of every batch.

    `total` is the number of images that are left to do, None where nobody knows yet.
    """

    def __init__(self, total: int | None, console: Console) -> None:
        self.total, self.console = total, console
        self.counts = Counts()
        self.began = self.spoke = time.monotonic()
        self.first: tuple[float, int] | None = None
        self.bar = Progress(
            TextColumn("Editing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.2f} images/s · {task.fields[failed]} failed · left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, rate=0.0, failed=0)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def add(self, counts: Counts) -> None:
        """Another batch is finished."""
        self.counts += counts
        finished = self.counts.finished
        rate = self._rate(finished)
        self.bar.update(self.task, completed=finished, rate=rate, failed=self.counts.failed)
        if not self.console.is_terminal:
            self._speak(finished, rate)

    def _rate(self, finished: int) -> float:
        """Images per second since the first batch: what came before was loading. At first, since the start."""
        if self.first is None:
            self.first = (self.seconds, finished)
        if self.seconds - self.first[0] < SECONDS_TO_SETTLE:
            return finished / self.seconds
        return (finished - self.first[1]) / (self.seconds - self.first[0])

    def _speak(self, finished: int, rate: float) -> None:
        settled = self.first is not None and self.seconds - self.first[0] >= SECONDS_TO_SETTLE
        if not settled or time.monotonic() - self.spoke < SECONDS_BETWEEN_LINES:
            return
        self.spoke = time.monotonic()
        counts = self.counts
        told = [f"{counts.done} done", f"{counts.failed} failed", f"{rate:.2f} images/s"]
        if counts.kept + counts.kept_failed:
            told.insert(0, f"{counts.kept + counts.kept_failed} finished before")
        if self.total is not None and rate:
            left = self.total - finished
            told += [f"{left} left", f"{left / rate:.0f} s to go"]
        self.console.print(", ".join(told), highlight=False)
