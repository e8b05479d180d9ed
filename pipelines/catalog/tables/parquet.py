"""Parquet, with every type of column that pandas, polars, DuckDB and Spark write."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infra.errors import CatalogError
from pipelines.catalog.tables.cells import FAULT, ROWS_AT_A_TIME, WHOLE_IN_DOUBLES, Block, located, text_of

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = 4  # bytes at the end as at the beginning


def blocks(file: "pa.NativeFile", names: Sequence[str], needed: Sequence[str]) -> Iterator[Block]:
    """The blocks of a table. Raises CatalogError; pyarrow's own errors where the file is damaged."""
    import pyarrow.parquet as pq

    _check_end(file)
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    places = located(schema.names, names, needed)
    for name, place in places.items():
        _check_type(name, schema.field(place).type, name in needed)
    yield {name: [] for name in (*places, FAULT)}
    found = {name: schema.names[place] for name, place in places.items()}
    for batch in parquet.iter_batches(ROWS_AT_A_TIME, columns=list(found.values())):
        columns = {name: _texts(name, batch.column(own)) for name, own in found.items()}
        yield {**columns, FAULT: [None] * len(batch)}


def _check_end(file: "pa.NativeFile") -> None:
    file.seek(max(0, file.size() - MAGIC))
    if not file.read(MAGIC).startswith(b"PAR"):
        raise CatalogError("this Parquet file is damaged or cut short: its end is missing. Copy or write it again.")
    file.seek(0)


def _check_type(name: str, type: "pa.DataType", address: bool) -> None:
    """Whether cells of a column can be text at all; those that must be addresses are, or are whole numbers."""
    import pyarrow.types as types

    plain = _plain(type)
    if types.is_nested(plain) or (address and not _may_be_address(plain)):
        raise CatalogError(f"the column `{name}` holds {str(type)[:80]}, not text.")


def _plain(type: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        return _plain(type.value_type)
    return _plain(type.storage_type) if isinstance(type, pa.BaseExtensionType) else type


def _may_be_address(type: "pa.DataType") -> bool:
    import pyarrow.types as types

    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    unmarked = (types.is_binary, types.is_large_binary, types.is_binary_view)  # text of old Spark, Hive and Impala
    return any(fits(type) for fits in (*texts, *unmarked))


def _texts(name: str, column: "pa.Array") -> list[str | None]:
    import pyarrow as pa

    exact = {pa.float16(): 2**11, pa.float32(): 2**24}.get(_plain(column.type), WHOLE_IN_DOUBLES)
    try:
        return [text_of(value, exact) for value in _dated(column).to_pylist()]
    except UnicodeDecodeError:
        raise CatalogError(f"the column `{name}` holds bytes that are not text in UTF-8.") from None


def _dated(column: "pa.Array") -> "pa.Array":
    """Dates and times as text: Arrow writes down also those that Python has no date for, or no time zone."""
    import pyarrow as pa

    type = _plain(column.type)
    if not pa.types.is_temporal(type):
        return column
    return column.cast(pa.timestamp(type.unit) if pa.types.is_timestamp(type) else type).cast(pa.string())
