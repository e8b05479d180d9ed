"""The manifest: a folder of Parquet files with what became of every image of a catalog.

Every batch appends one part; no part is ever changed. The newest row of a `uri` counts, and so does the newest row of a
`result_uri` (an input whose result was replaced by another's has none any more). A row without a status takes an input
out: `revert` appends such rows, and compaction drops them. Compaction writes the counting rows as new parts, in order
of uri, and only then deletes the parts it has read, in order of name, so a reader is right at any moment.
Nothing in here holds a manifest in memory, except `read`.
"""

import io
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from infra import store
from infra.errors import StoreError
from pipelines.catalog import database

DONE, FAILED = "done", "failed"
LOOSE, COMPACTED = "part-", "compact-"
MANY_LOOSE = 64  # parts that take a while to read
ROWS_IN_A_PART = 250_000
DAMAGED = "{folder}: the manifest cannot be read ({reason}); --fresh does without it."

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
        ("numerics", pa.string()),
    ]
)

NEWEST = """
CREATE TEMP VIEW newest AS
SELECT * FROM (SELECT * FROM recorded QUALIFY row_number() OVER (PARTITION BY uri ORDER BY finished_at DESC) = 1)
WHERE status IS NOT NULL
QUALIFY result_uri IS NULL OR row_number() OVER (PARTITION BY result_uri ORDER BY finished_at DESC) = 1
"""


def append(folder: str, rows: Sequence[dict[str, Any]]) -> None:
    """Make these rows durable, as one new part. Columns that a row leaves out are null."""
    last = "" if all(row.get("status") for row in rows) else "taken-out-"  # deleted after what it takes out
    name = f"{LOOSE}{last}{secrets.token_hex(8)}.parquet"
    _write_part(store.join(folder, name), pa.Table.from_pylist(list(rows), schema=SCHEMA))


def parts(folder: str) -> list[str]:
    """The URIs of what the manifest consists of now. Readers that are given them see no later rows."""
    return [stored.uri for stored in store.list_objects(folder) if stored.uri.endswith(".parquet")]


def loose(among: Sequence[str]) -> list[str]:
    """Those parts that no compaction has seen."""
    return [part for part in among if part.rpartition("/")[2].startswith(LOOSE)]


def read(folder: str, columns: Iterable[str] | None = None) -> pa.Table:
    """The rows that count, in order of uri, with these columns (None: all). Raises StoreError if damaged."""
    wanted = list(columns or SCHEMA.names)
    with opened(folder, parts(folder)) as connection:
        table = connection.sql(f"SELECT {', '.join(wanted)} FROM newest ORDER BY uri").to_arrow_table()
    return table.cast(pa.schema([SCHEMA.field(name) for name in wanted]))


@contextmanager
def opened(folder: str, among: Sequence[str]) -> Iterator[database.Database]:
    """These parts in a database, where `newest` has the rows that count. Raises StoreError if they are damaged."""
    import duckdb

    with database.opened() as connection:
        connection.register("recorded", _dataset(folder, among) if among else SCHEMA.empty_table())
        connection.execute(NEWEST)
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise StoreError(f"{folder}: the temporary folder has no room for the manifest ({error}).") from None
        except (duckdb.Error, pa.ArrowException) as error:
            raise StoreError(DAMAGED.format(folder=folder, reason=str(error).splitlines()[0])) from None


def latest(folder: str) -> datetime | None:
    """When the latest row was finished, whether it counts or not; None if there is none."""
    there = parts(folder)
    if not there:
        return None
    with opened(folder, there) as connection:
        return latest_of(connection)


def latest_of(connection: database.Database) -> datetime | None:
    """The same of an opened manifest."""
    (row,) = connection.sql("SELECT epoch_us(max(finished_at)) AS latest FROM recorded").to_arrow_table().to_pylist()
    return None if row["latest"] is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row["latest"])


def stamp(after: datetime | None) -> datetime:
    """When a row is finished that is written now: later than `after`, the latest one, whatever the clocks say."""
    now = datetime.now(UTC)
    return max(now, after + timedelta(microseconds=1)) if after else now


def compact(folder: str) -> None:
    """Leave the rows that count, and nothing else, unless that is what is there already."""
    old = parts(folder)
    if not loose(old) or len(old) < 2:
        return
    run = secrets.token_hex(8)
    with opened(folder, old) as connection:
        rows = connection.sql("SELECT * FROM newest ORDER BY uri").to_arrow_reader(ROWS_IN_A_PART // 10)
        for number, table in enumerate(_tables(rows)):
            _write_part(store.join(folder, f"{COMPACTED}{run}-{number:05}.parquet"), table)
    for part in old:
        store.delete(part)


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches gathered into parts of about `ROWS_IN_A_PART` rows."""
    gathered: list[pa.RecordBatch] = []
    for batch in batches:
        gathered.append(batch)
        if sum(map(len, gathered)) >= ROWS_IN_A_PART:
            yield pa.Table.from_batches(gathered).cast(SCHEMA)
            gathered = []
    if gathered:
        yield pa.Table.from_batches(gathered).cast(SCHEMA)


def drop_damaged(folder: str) -> None:
    """Delete parts that cannot be read, whose rows are lost already."""
    for part in parts(folder):
        try:
            _dataset(folder, [part]).count_rows()
        except (pa.ArrowException, OSError, ValueError):
            store.delete(part)


def _write_part(uri: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write(uri, buffer.getvalue())


def _dataset(folder: str, among: Sequence[str]) -> ds.Dataset:
    filesystem, path = store.arrow(folder)
    paths = [store.join(path, part.rpartition("/")[2]) for part in among]
    return ds.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)
