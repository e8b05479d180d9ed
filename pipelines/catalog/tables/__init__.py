"""Tables of images: Parquet, CSV or JSON lines with a column `uri`, streamed, however many rows they have.

What a file is, its first bytes say (`opening.py`); every format has one reader. A cell that cannot be used costs its
row, which says why under FAULT; a file that cannot be read is one sentence.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from infra import store
from infra.errors import CatalogError
from pipelines.catalog.tables.cells import FAULT, ROWS_AT_A_TIME, Block
from pipelines.catalog.tables.opening import blocks_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FAULT", "TABLES", "TABLES_ARE", "blocks", "is_table", "one_each", "read_table"]

TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson")
TABLES = (".parquet", *TEXTS, *(f"{text}{packed}" for text in TEXTS for packed in (".gz", ".zst")))
TABLES_ARE = "A table is a .parquet, .csv, .tsv or .jsonl file with a column `uri`, and a row for every image."


def is_table(name: str) -> bool:
    """Whether a file of this name is meant as a table; what it is, it says itself."""
    return PurePosixPath(name).name.lower().endswith(TABLES)


def read_table(uri: str, names: Sequence[str], needed: Sequence[str]) -> Block:
    """Those of the named columns that a table has, whole. Raises CatalogError, for a row's fault too; NotInStore."""
    columns: Block = {}
    for block in blocks(uri, names, needed):
        fault = next(filter(None, block.pop(FAULT)), None)
        if fault:
            raise CatalogError(f"{uri}: {fault}")
        for name, values in block.items():
            columns.setdefault(name, []).extend(values)
    return columns


def blocks(uri: str, names: Sequence[str], needed: Sequence[str]) -> Iterator[Block]:
    """The same, a block of rows at a time, in the order of the table; one without rows gives one empty block.

    A column is found whatever the case of its name. Cells hold text; numbers are taken as text too, and what is none
    (NaN) as nothing. The column FAULT says why a row cannot be used, None where it can.
    Raises CatalogError and NotInStore.
    """
    if store.stat(uri) is None:
        store.read(uri, 1)  # says what is wrong with the address
    try:
        yield from blocks_of(uri, names, needed)
    except CatalogError as error:
        raise CatalogError(f"{uri}: {error}") from None


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
