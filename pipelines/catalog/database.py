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


class Database:
    """A DuckDB connection that can read what Python produces, and does not bury what Python raises meanwhile."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self.connection = connection
        self.raised: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def stream(self, name: str, rows: Iterable[dict[str, Any]], schema: "pa.Schema") -> None:
        """Let `name` be these rows, which are read when they are needed, and only once."""
        import pyarrow as pa

        def batches() -> Iterator[pa.RecordBatch]:
            left = iter(rows)
            try:
                while chunk := list(islice(left, ROWS_AT_A_TIME)):
                    yield pa.RecordBatch.from_pylist(chunk, schema=schema)
            except Exception as error:
                self.raised = error
                raise

        self.register(name, pa.RecordBatchReader.from_batches(schema, batches()))


@contextmanager
def opened() -> Iterator[Database]:
    """A database of its own. One thread: rows come in the same order every time.

    Raises what the rows of a stream raise.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="edit-transfer-") as spilled:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": spilled,
            "threads": 1,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET disabled_optimizers='join_order,build_side_probe_side'")  # what streams, streams by
            database = Database(connection)
            try:
                yield database
            except Exception:
                if database.raised:
                    raise database.raised from None
                raise
