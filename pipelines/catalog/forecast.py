"""`--dry-run`: what a job would do, and how long it would take. Measures a few images, writes nothing."""

import time
from collections import Counter
from dataclasses import dataclass

from infra import cluster, store
from infra.errors import ImageError, StoreError
from infra.settings import Settings
from pipelines import codec
from pipelines.catalog import stages
from pipelines.catalog.counts import Counts
from pipelines.catalog.feed import planned
from pipelines.catalog.job import Options, Prepared, job_of
from pipelines.catalog.listing import Input, list_catalog
from pipelines.catalog.plan import Settled

SAMPLE = 4


@dataclass(frozen=True)
class Forecast:
    """What would happen. Sizes are in pixels; times in seconds, None where there is nothing to measure."""

    total: int
    to_do: int
    skipped: int
    failed: int
    formats: dict[str, int]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    failures: list[tuple[str, str, str]]
    seconds_per_image: float | None
    seconds: float | None


def forecast(prepared: Prepared, options: Options, settings: Settings) -> Forecast:
    """Look at the header of every image that is left to do, and edit up to four of them."""
    headers: list[codec.Header] = []
    failures: list[tuple[str, str, str]] = []
    good: list[Input] = []
    tasks, kept = [], Counts()
    for found in planned(prepared.feed, list_catalog(options.input, prepared.place, options.format)):
        if isinstance(found, Settled):
            kept += Counts.of_settled([found])
        else:
            tasks.append(found)
    for task in tasks:
        try:
            headers.append(stages.header(task.input, settings.max_pixels))
            good.append(task.input)
        except ImageError as error:
            failures.append((task.input.relative_path, error.code, str(error)))
    sizes = sorted(((header.width, header.height) for header in headers), key=lambda size: size[0] * size[1])
    each = _seconds_per_image(prepared, options, good, settings)
    return Forecast(
        total=len(tasks) + kept.total,
        to_do=len(tasks),
        skipped=kept.kept,
        failed=kept.kept_failed + len(failures),
        formats=dict(Counter(header.format for header in headers).most_common()),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        failures=failures,
        seconds_per_image=each,
        seconds=None if each is None else each * len(good) / (options.workers or cluster.cores()),
    )


def _seconds_per_image(prepared: Prepared, options: Options, good: list[Input], settings: Settings) -> float | None:
    """Measured like one worker of the job, on images from all over the catalog, one after the other."""
    if not good:
        return None
    bench = job_of(prepared, options, settings, workers=1).bench()
    times = []
    for found in good[:: max(1, len(good) // SAMPLE)][:SAMPLE]:
        began = time.perf_counter()
        try:
            photo = codec.decode(store.read(found.uri), settings.max_pixels)
            codec.encode(photo, bench.edit([photo.image], prepared.feed.edits.usual, [0])[0])
        except (ImageError, StoreError):
            continue
        times.append(time.perf_counter() - began)
    return sum(times) / len(times) if times else None
