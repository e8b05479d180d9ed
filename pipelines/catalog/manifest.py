"""The manifest: a folder of Parquet files with what became of every image of a catalog.

Every batch appends one part; no part is ever changed. The newest row of a `uri` counts, and so does the
newest row of a `result_uri` (an input whose result was replaced by another's has none any more). Compaction
writes the counting rows as one new part and only then deletes the parts it has read, so a reader is right at
any moment.
"""

import io
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from infra import store
from infra.errors import StoreError

DONE, FAILED = "done", "failed"

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("relative_path", pa.string()),
        ("input_sha256", pa.string()),
        ("input_etag", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("work_id", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error", pa.string()),
        ("result_uri", pa.string()),
        ("result_sha256", pa.string()),
        ("adapter", pa.string()),
        ("adapter_version", pa.int32()),
        ("adapter_digest", pa.string()),
        ("base", pa.string()),
        ("steps", pa.int32()),
        ("seed", pa.int64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("seconds", pa.float64()),
        ("finished_at", pa.timestamp("us", tz="UTC")),
        ("job_id", pa.string()),
    ]
)


def append(folder: str, rows: Sequence[dict[str, Any]]) -> None:
    """Make these rows durable, as one new part. Columns that a row leaves out are null."""
    _write_part(folder, pa.Table.from_pylist(list(rows), schema=SCHEMA))


def read(folder: str, columns: Iterable[str] | None = None) -> pa.Table:
    """The rows that count, in order of uri, with these columns (None: all). Raises StoreError if damaged."""
    return _counting(folder, _parts(folder), columns)


def compact(folder: str) -> pa.Table:
    """Leave one part with the rows that count, and return them."""
    parts = _parts(folder)
    table = _counting(folder, parts)
    if len(parts) > 1:
        _write_part(folder, table)
        for part in parts:
            store.delete(part)
    return table


def drop_damaged(folder: str) -> None:
    """Delete parts that cannot be read, whose rows are lost already."""
    for part in _parts(folder):
        try:
            _counting(folder, [part])
        except StoreError:
            store.delete(part)


def _parts(folder: str) -> list[str]:
    return [stored.uri for stored in store.list_objects(folder) if stored.uri.endswith(".parquet")]


def _write_part(folder: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(store.join(folder, f"part-{secrets.token_hex(8)}.parquet"), buffer.getvalue())


def _counting(folder: str, parts: list[str], columns: Iterable[str] | None = None) -> pa.Table:
    wanted = list(columns or SCHEMA.names)
    if not parts:
        return SCHEMA.empty_table().select(wanted)
    needed = dict.fromkeys([*wanted, "uri", "result_uri", "finished_at"])
    try:
        table = _dataset(folder, parts).to_table(columns=list(needed))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{folder}: the manifest cannot be read ({reason}); --fresh does without it.") from None
    table = _newest(_newest(table, "uri"), "result_uri")
    return table.sort_by("uri").select(wanted)


def _dataset(folder: str, parts: list[str]) -> ds.Dataset:
    filesystem, path = store.arrow(folder)
    paths = [store.join(path, part.rpartition("/")[2]) for part in parts]
    return ds.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)


def _newest(table: pa.Table, key: str) -> pa.Table:
    """Of rows with the same key the newest; rows without the key all stay."""
    table = table.sort_by([(key, "ascending"), ("finished_at", "descending")])
    keys = table[key].combine_chunks()
    if len(keys) < 2:
        return table
    first = pc.fill_null(pc.not_equal(keys[1:], keys[:-1]), True)
    return table.filter(pa.concat_arrays([pa.array([True]), first]))
