"""What flows into the job: the catalog, listed and written down, minus the work that is finished, in batches.

It runs in a worker, as the one read task of the graph. Whatever the number of images, it holds one part of the catalog
at a time, and DuckDB holds the manifest, on disk where need be. Ray may run it again from the start when its machine
dies and skips as many batches as it has seen: so, done again, it gives the same batches. That is why the catalog is
written down before it is used, and why `recorded` names the parts of the manifest as they were when the job began.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from infra.errors import ImageError, StoreError
from pipelines.catalog import manifest, parts
from pipelines.catalog.counts import Counts
from pipelines.catalog.listing import Catalog, Input, list_catalog
from pipelines.catalog.plan import Settled, Task, plan
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe

OPEN_BATCHES = 64  # edits whose batches are filled side by side
ROWS_TOLD = 1000  # of settled rows, before they are told
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Where the inputs come from and what decides whether they are done again.

    recorded  parts of the manifest that count; () to do everything again
    folder    gets the catalog table; None writes none
    """

    source: str
    output: str
    format: str | None
    edits: Edits
    manifest: str
    recorded: Sequence[str] = ()
    retry_failed: bool = False
    limit: int | None = None
    folder: str | None = None


def batches(feed: Feed, size: int) -> Iterator[list[Task] | Counts]:
    """The tasks that are left, `size` at a time and of one edit each, and the counts of what stays as it is.

    Raises CatalogError and StoreError where the listing cannot go on.
    """
    catalog = list_catalog(feed.source, feed.output, feed.format)
    filling: dict[Recipe, list[Task]] = {}
    settled: list[Settled] = []
    for found in planned(feed, catalog):
        if isinstance(found, Settled):
            settled.append(found)
            if len(settled) == ROWS_TOLD:
                yield Counts.of_settled(settled)
                settled = []
            continue
        recipe = found.variant.recipe
        batch = filling.setdefault(recipe, [])
        batch.append(found)
        if len(batch) == size:
            yield filling.pop(recipe)
        elif len(filling) > OPEN_BATCHES:
            yield filling.pop(next(iter(filling)))
    yield from filling.values()
    yield Counts.of_settled(settled) + Counts(passed=catalog.passed)


def planned(feed: Feed, catalog: Catalog) -> Iterator[Task | Settled]:
    """Every input, in order, as what is to be done with it."""
    choose = feed.edits.chooser()
    for found, row in _joined(listed(feed, catalog), feed):
        try:
            variant = choose(found.own)
        except ImageError as error:
            found, variant = found.failing(error.code, str(error)), feed.edits.usual
        yield plan(found, row, variant, feed.retry_failed)


def listed(feed: Feed, catalog: Catalog) -> Iterator[Input]:
    """The inputs, of which the catalog table tells later readers."""
    if feed.folder is None:
        return islice(catalog, feed.limit)
    return (found for part in parts.written(feed.folder, catalog, feed.limit) for found in part)


def _joined(inputs: Iterable[Input], feed: Feed) -> Iterator[tuple[Input, Row | None]]:
    """Inputs with their newest row. The manifest is the side of the join that is kept; the inputs stream by."""
    if not feed.recorded:
        yield from ((found, None) for found in inputs)
        return
    import pyarrow as pa

    passing: deque[Input] = deque()

    def uris() -> Iterator[Row]:
        for found in inputs:
            passing.append(found)
            yield {"uri": found.uri}

    with manifest.opened(feed.manifest, feed.recorded) as connection:
        connection.stream("listed", uris(), pa.schema([("uri", pa.string())]))
        joined = connection.sql(
            "SELECT listed.uri AS asked, newest AS row FROM listed LEFT JOIN newest ON listed.uri = newest.uri"
        )
        for batch in joined.to_arrow_reader(ROWS_TOLD):
            for each in batch.to_pylist():
                found = passing.popleft()
                if each["asked"] != found.uri:
                    raise StoreError(f"{feed.manifest}: rows came out of order; please report this.")
                yield found, each["row"] if each["row"] and each["row"]["uri"] else None
