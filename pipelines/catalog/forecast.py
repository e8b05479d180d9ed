"""`--dry-run`: what a job would do, and how long it would take. Measures a few images, writes nothing."""

import time
from collections import Counter
from dataclasses import dataclass

from infra import store
from infra.errors import ImageError, StoreError
from infra.settings import Settings
from pipelines import codec
from pipelines.catalog import stages
from pipelines.catalog.job import Options, Prepared, job_of, workers_wanted
from pipelines.catalog.listing import Input

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
    for task in prepared.plan.tasks:
        try:
            headers.append(stages.header(task.input, settings.max_pixels))
            good.append(task.input)
        except ImageError as error:
            failures.append((task.input.relative_path, error.code, str(error)))
    sizes = sorted(((header.width, header.height) for header in headers), key=lambda size: size[0] * size[1])
    each = _seconds_per_image(prepared, options, good, settings)
    return Forecast(
        total=len(prepared.inputs),
        to_do=len(prepared.plan.tasks),
        skipped=prepared.plan.skipped,
        failed=prepared.plan.failed + len(failures),
        formats=dict(Counter(header.format for header in headers).most_common()),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        failures=failures,
        seconds_per_image=each,
        seconds=None if each is None else each * len(good) / workers_wanted(options, len(good)),
    )


def _seconds_per_image(prepared: Prepared, options: Options, good: list[Input], settings: Settings) -> float | None:
    """Measured like one worker of the job, on images from all over the catalog, one after the other."""
    if not good:
        return None
    editor, prefix = job_of(prepared, options, settings, workers=1).ready_editor()
    times = []
    for found in good[:: max(1, len(good) // SAMPLE)][:SAMPLE]:
        began = time.perf_counter()
        try:
            photo = codec.decode(store.read(found.uri), settings.max_pixels)
            codec.encode(photo, editor.edit([photo.image], prefix, seeds=[0], steps=prepared.recipe.steps)[0])
        except (ImageError, StoreError):
            continue
        times.append(time.perf_counter() - began)
    return sum(times) / len(times) if times else None
