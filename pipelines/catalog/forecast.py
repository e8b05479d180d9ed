"""`--dry-run`: what a job would do, and how long it would take. Measures a few images, writes nothing.

Everything is listed and counted, as a stream. Headers are looked at of all images up to `LOOKED_AT`, and of so many
chosen at random where there are more: what is found in them then stands for the rest.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from infra import store
from infra.errors import ImageError, StoreError
from infra.settings import Settings
from pipelines import codec
from pipelines.catalog import duplicates, stages
from pipelines.catalog.counts import Counts
from pipelines.catalog.duplicates import Duplicates
from pipelines.catalog.feed import planned
from pipelines.catalog.job import Prepared, job_of, workers_here
from pipelines.catalog.listing import Catalog, Input, Passed, list_catalog
from pipelines.catalog.options import Options
from pipelines.catalog.plan import Settled
from pipelines.restore import finished

LOOKED_AT = 2000
HEADERS_AT_ONCE = 16
MEASURED = 4  # images, after one that is edited to warm up


@dataclass(frozen=True)
class Forecast:
    """What would happen. Sizes are in pixels; times in seconds, None where there is nothing to measure.

    total, to_do, skipped  images, counted
    failed                 those that failed before and stay so, and those that are sure to; where `looked_at` is less
                           than `to_do`, that is an estimate
    looked_at              images whose headers were read: formats, smallest, largest and failures are theirs
    bytes                  of all images whose size the listing told, which are `sized`
    workers                that the estimate counts on; `on_cluster`: the job will run on another's, perhaps more
    seconds                of editing, on all workers together; cost is in the currency of the price
    """

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
    looked_at: int
    bytes: int
    sized: int
    workers: int
    on_cluster: bool
    cost: float | None
    cost_per_1000: float | None
    duplicates: Duplicates
    passed: Passed

    def told(self) -> dict[str, Any]:
        """What `--json` prints."""
        told = asdict(self)
        del told["passed"]
        return told


@dataclass
class Tally:
    """What a listing comes to; `sample` has some of what is left to do, all of it up to `LOOKED_AT`, in order."""

    kept: Counts
    to_do: int
    bytes: int
    sized: int
    sample: Sequence[Input]
    duplicates: Duplicates
    passed: Passed


@dataclass
class Looks:
    """What the headers of some images say."""

    good: list[Input]
    headers: list[codec.Header]
    failures: list[tuple[str, str, str]]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the smallest image, and so on."""
        found = ((header.width, header.height) for header in self.headers)
        return sorted(found, key=lambda size: size[0] * size[1])


def forecast(prepared: Prepared, options: Options, settings: Settings) -> Forecast:
    """List everything, look at headers, and edit a few images."""
    tally = _tallied(prepared, options)
    looks = _looked(tally.sample, settings.max_pixels)
    looked_at = len(tally.sample)
    failing = round(tally.to_do * len(looks.failures) / looked_at) if looked_at else 0
    workers = max(1, min(workers_here(options), tally.to_do))
    each = _seconds_per_image(prepared, options, looks.good, settings)
    seconds = None if each is None else each * (tally.to_do - failing) / workers
    price = None if each is None or options.price_per_hour is None else options.price_per_hour * each / 3600
    sizes = looks.sizes
    return Forecast(
        total=tally.to_do + tally.kept.total,
        to_do=tally.to_do,
        skipped=tally.kept.kept,
        failed=tally.kept.kept_failed + failing,
        formats=dict(Counter(header.format for header in looks.headers).most_common()),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        failures=looks.failures,
        seconds_per_image=each,
        seconds=seconds,
        looked_at=looked_at,
        bytes=tally.bytes,
        sized=tally.sized,
        workers=workers,
        on_cluster=bool(settings.ray),
        cost=None if price is None else round(price * (tally.to_do - failing), 4),
        cost_per_1000=None if price is None else round(price * 1000, 4),
        duplicates=tally.duplicates,
        passed=tally.passed,
    )


def _tallied(prepared: Prepared, options: Options) -> Tally:
    catalog = list_catalog(options.input, prepared.place, options.format)
    tally = Tally(Counts(), 0, 0, 0, (), Duplicates(0, 0, 0, []), catalog.passed)

    def counted() -> Iterator[Input]:
        for found in catalog:
            tally.bytes += found.size or 0
            tally.sized += found.size is not None
            yield found

    with duplicates.opened() as seen:
        streamed = Catalog(catalog.source, duplicates.passing(counted(), seen), catalog.passed)
        tally.sample = _sampled(_left(planned(prepared.feed, streamed), tally))
        tally.duplicates = seen.duplicates()
    return tally


def _left(found: Iterator[Any], tally: Tally) -> Iterator[Input]:
    """The inputs that are left to do; the others are only counted."""
    for each in found:
        if isinstance(each, Settled):
            tally.kept += Counts.of_settled([each])
        else:
            tally.to_do += 1
            yield each.input


def _sampled(inputs: Iterator[Input]) -> list[Input]:
    """So many of them, each as likely as any other, in order; the same every time (reservoir sampling)."""
    chance = random.Random(0)
    kept: list[tuple[int, Input]] = []
    for index, found in zip(count(), inputs, strict=False):
        if index < LOOKED_AT:
            kept.append((index, found))
        elif (place := chance.randrange(index + 1)) < LOOKED_AT:
            kept[place] = (index, found)
    return [found for _, found in sorted(kept, key=lambda each: each[0])]


def _looked(inputs: Sequence[Input], max_pixels: int) -> Looks:
    """Their headers. Raises StoreUnavailable."""

    def look(found: Input) -> codec.Header | ImageError:
        try:
            return stages.header(found, max_pixels)
        except ImageError as error:
            return error

    looks = Looks([], [], [])
    with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
        for found, seen in zip(inputs, pool.map(look, inputs), strict=True):
            if isinstance(seen, ImageError):
                looks.failures.append((found.relative_path, seen.code, str(seen)))
            else:
                looks.good.append(found)
                looks.headers.append(seen)
    return looks


def _seconds_per_image(prepared: Prepared, options: Options, good: list[Input], settings: Settings) -> float | None:
    """Measured like one worker of the job, on images from all over the catalog, one after the other."""
    if not good:
        return None
    bench = job_of(prepared, options, settings, workers=1).bench()
    times = []
    for found in [good[0], *good[:: max(1, len(good) // MEASURED)][:MEASURED]]:
        began = time.perf_counter()
        try:
            photo = codec.decode(store.read(found.uri), settings.max_pixels)
            [result] = bench.edit([photo.image], prepared.feed.edits.usual, [0])
            codec.encode(photo, finished(photo.image, result)[0])
        except (ImageError, StoreError):
            continue
        times.append(time.perf_counter() - began)
    times = times[1:] or times  # the first one warms up
    return sum(times) / len(times) if times else None
