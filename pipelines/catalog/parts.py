"""The catalog table: what was listed for one job, as Parquet parts that are written while the listing goes on.

It is what the job is measured against: every row has to have its row in the manifest at the end.
"""

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from infra import store
from pipelines.catalog.listing import OWN_COLUMNS, Catalog, Input, Own, Passed

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("relative_path", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("error_code", pa.string()),
        ("error", pa.string()),
        *((name, pa.string()) for name in OWN_COLUMNS),
    ]
)
FIRST_ROWS, ROWS = 100, 10_000  # the first part is soon there, the others are few
PASSED = "passed.json"  # what was passed over; there when the listing is complete


def written(folder: str, catalog: Catalog, limit: int | None = None) -> Iterator[list[Input]]:
    """List the catalog, at most `limit` inputs of it, and give out every part once it is durable.

    Done again, it gives out what was written, in the same parts, and lists only if that was not everything: whoever
    counts on what it got before gets no other.
    """
    before = list(store.list_objects(folder))
    known: set[str] = set()
    for stored in before:
        if stored.uri.endswith(".parquet"):
            part = _inputs(pq.read_table(io.BytesIO(store.read(stored.uri))))
            known.update(found.uri for found in part)
            yield part
    complete = next((stored.uri for stored in before if stored.uri.endswith(PASSED)), None)
    if complete:
        catalog.passed = Passed.from_json(store.read(complete))
        return
    listed = islice(catalog, limit)
    left = (found for found in listed if found.uri not in known) if known else listed
    number = len(before)
    while part := list(islice(left, ROWS if number else FIRST_ROWS)):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([_row(found) for found in part], schema=SCHEMA), buffer, compression="zstd")
        store.write(store.join(folder, f"part-{number:06}.parquet"), buffer.getvalue())
        yield part
        number += 1
    store.write(store.join(folder, PASSED), catalog.passed.to_json())


def clear(folder: str) -> None:
    """Forget what was written there."""
    for stored in list(store.list_objects(folder)):
        store.delete(stored.uri)


def dataset(folder: str) -> ds.Dataset:
    """What has been listed, to be asked with DuckDB."""
    filesystem, path = store.arrow(folder)
    names = [stored.uri.rpartition("/")[2] for stored in store.list_objects(folder)]
    paths = [store.join(path, name) for name in names if name.endswith(".parquet")]
    return ds.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)


def _row(found: Input) -> dict[str, Any]:
    row = {name: getattr(found, name) for name in ("uri", "relative_path", "etag", "size", "error_code", "error")}
    return row | {name: getattr(found.own, name) for name in OWN_COLUMNS}


def _inputs(table: pa.Table) -> list[Input]:
    rows = table.to_pylist()
    owns = [Own(**{name: row.pop(name) for name in OWN_COLUMNS}) for row in rows]
    return [Input(**row, own=own) for row, own in zip(rows, owns, strict=True)]
