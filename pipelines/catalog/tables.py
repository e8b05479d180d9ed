"""Tables of images: Parquet or CSV with a column `uri`, streamed, however many rows they have."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra import store
from infra.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".parquet", ".csv")
ROWS_AT_A_TIME = 10_000


def read_table(uri: str, names: Sequence[str], needed: Sequence[str]) -> dict[str, list[str | None]]:
    """Those of the named columns that a Parquet or CSV table has, whole. Raises CatalogError, NotInStore."""
    columns: dict[str, list[str | None]] = {}
    for block in blocks(uri, names, needed):
        for name, values in block.items():
            columns.setdefault(name, []).extend(values)
    return columns


def blocks(uri: str, names: Sequence[str], needed: Sequence[str]) -> Iterator[dict[str, list[str | None]]]:
    """The same, a block of rows at a time, in the order of the table; one without rows gives one empty block.

    Columns hold text; whole numbers are taken as text too. Raises CatalogError and NotInStore.
    """
    import pyarrow as pa

    if store.stat(uri) is None:
        store.read(uri, 1)  # says what is wrong with the address
    with _readable(uri):
        schema, batches = _opened(uri, names)
        missing = " and ".join(f"`{name}`" for name in needed if name not in schema.names)
        if missing:
            raise CatalogError(f"{uri}: the table needs a column {missing}; it has {', '.join(schema.names)}.")
        wanted = [name for name in names if name in schema.names]
        for name in wanted:
            if schema.names.count(name) > 1:
                raise ValueError(f"there are two columns `{name}`")
        yield {name: [] for name in wanted}
        for batch in batches:
            yield {name: _text(pa.Table.from_batches([batch]), name) for name in wanted}


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise CatalogError(f"{uri}: this table cannot be read ({reason}). A CSV file must be UTF-8.") from None


def _opened(uri: str, names: Sequence[str]) -> tuple["pa.Schema", Iterable["pa.RecordBatch"]]:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    filesystem, path = store.arrow(uri)
    if uri.lower().endswith(".csv"):
        as_text = csv.ConvertOptions(column_types={name: pa.string() for name in names})  # `001` is no number
        reader = csv.open_csv(filesystem.open_input_stream(path), convert_options=as_text)
        return reader.schema, reader
    file = pq.ParquetFile(filesystem.open_input_file(path))
    schema = file.schema_arrow
    wanted = [name for name in names if name in schema.names]
    return schema, file.iter_batches(ROWS_AT_A_TIME, columns=wanted)


def _text(table: "pa.Table", name: str) -> list[str | None]:
    import pyarrow as pa

    column = table[name]
    if pa.types.is_dictionary(column.type) or pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        if pa.types.is_null(column.type):
            return [None] * len(column)
        raise ValueError(f"the column `{name}` holds {column.type}, not text")
    return column.to_pylist()


def one_each(rows: Iterator[dict[str, Any]], schema: "pa.Schema") -> Iterator[dict[str, Any]]:
    """Of rows with the same `uri` the first, in order; `owner` is the uri that has the same `result` first.

    Memory is bounded, whatever the number of rows: DuckDB keeps what does not fit on disk.
    """
    from pipelines.catalog import database

    with database.opened() as connection:
        connection.stream("rows", rows, schema)
        connection.execute("CREATE TEMP TABLE numbered AS SELECT row_number() OVER () AS n, * FROM rows")
        chosen = connection.sql("""
            SELECT * EXCLUDE n, first_value(uri) OVER (PARTITION BY result ORDER BY n) AS owner
            FROM (SELECT * FROM numbered QUALIFY row_number() OVER (PARTITION BY uri ORDER BY n) = 1)
            ORDER BY n""")
        for batch in chosen.to_arrow_reader(ROWS_AT_A_TIME):
            yield from batch.to_pylist()
