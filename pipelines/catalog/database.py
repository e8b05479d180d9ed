"""DuckDB, for what is asked of tables that may not fit into memory: joins, the newest rows, samples."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY = "512MB"  # what DuckDB keeps in memory; the rest goes to a temporary folder
ROWS_AT_A_TIME = 1000


@contextmanager
def opened() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database of its own. One thread: rows come in the same order every time."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="edit-transfer-") as spilled:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": spilled,
            "threads": 1,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET disabled_optimizers='join_order,build_side_probe_side'")  # what streams, streams by
            yield connection


def reader(rows: Iterable[dict[str, Any]], schema: "pa.Schema") -> "pa.RecordBatchReader":
    """Rows as a stream that DuckDB reads as it needs them."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        left = iter(rows)
        while chunk := list(islice(left, ROWS_AT_A_TIME)):
            yield pa.RecordBatch.from_pylist(chunk, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
