"""Which column of a table is which, and what a cell says: the same in every format."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

from infra.errors import CatalogError

FAULT = "fault"  # the column of a block that says why a row cannot be used
ROWS_AT_A_TIME = 10_000
COLUMNS_TOLD = 20  # of a table, in an error
WHOLE_IN_DOUBLES = 2**53  # up to here every whole number is one of them: larger ones may have been others

Block = dict[str, list[str | None]]
Row = tuple[Sequence[str | None], str | None]  # the cells in order of the columns, and its fault


def plain(name: str) -> str:
    """A column's name without what spreadsheets and people add: case, spaces around it, a byte order mark."""
    return name.replace("\ufeff", "").strip().casefold()


def located(found: Sequence[str], names: Sequence[str], needed: Sequence[str] = ()) -> dict[str, int]:
    """Where the named columns are, of those that a table has; an exact name goes before one in other letters.

    Raises CatalogError where a needed one is missing, or a name stands for two.
    """
    places = {name: place for name in names if (place := _place(found, name)) is not None}
    missing = " and ".join(f"`{name}`" for name in needed if name not in places)
    if missing:
        raise CatalogError(f"the table needs a column {missing}; it has {_told(found)}.")
    return places


def _place(found: Sequence[str], name: str) -> int | None:
    matching = [at for at, each in enumerate(found) if each == name]
    matching = matching or [at for at, each in enumerate(found) if plain(each) == name]
    if len(matching) > 1:
        alike = " and ".join(f"`{_printable(found[at])}`" for at in matching)
        raise CatalogError(f"there are two columns `{name}` ({alike}); rename one.")
    return matching[0] if matching else None


def _told(found: Sequence[str]) -> str:
    names = [_printable(name) or "one without a name" for name in found]
    more = f" and {len(names) - COLUMNS_TOLD} more" if len(names) > COLUMNS_TOLD else ""
    return (", ".join(names[:COLUMNS_TOLD]) + more) or "none"


def _printable(name: str) -> str:
    words = " ".join(name.split())
    return "".join(each if each.isprintable() else "?" for each in words)[:60]


def text_of(value: Any, exact: int = WHOLE_IN_DOUBLES) -> str | None:
    """A cell as text: a whole number without its `.0`, None for NaN. Raises UnicodeDecodeError for bytes that are none.

    `exact` is the largest number that a float of its kind stands for alone. Larger ones keep an exponent, and so are
    never taken for a whole number.
    """
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and abs(value) > exact:
        return f"{value:e}"
    if isinstance(value, float | Decimal) and value == int(value):
        return str(int(value))
    return str(value)


def in_blocks(names: Sequence[str], rows: Iterable[Row]) -> Iterator[Block]:
    """Rows as columns, an empty block first."""
    yield {name: [] for name in (*names, FAULT)}
    left = iter(rows)
    while chunk := list(islice(left, ROWS_AT_A_TIME)):
        columns = zip(*(cells for cells, _ in chunk), strict=True)
        yield dict(zip(names, map(list, columns), strict=True)) | {FAULT: [fault for _, fault in chunk]}
