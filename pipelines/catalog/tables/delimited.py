"""CSV as spreadsheets write it: comma, semicolon, tab or bar, `sep=;` before the header, line breaks in quotes.

Python's reader and not pyarrow's: it knows the lines, goes on after a row of another length, and keeps every cell the
text that it is (`001` is no number).
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from infra.errors import CatalogError
from pipelines.catalog.tables.cells import Block, Row, in_blocks, located, plain
from pipelines.catalog.tables.lines import LONGEST, Lines

SEPARATORS = ",;\t|"
ANNOUNCED = re.compile(r'\ufeff?"?sep=([^"\w\r\n])"?[ \t]*(\r\n|\r|\n|$)', re.IGNORECASE)  # Excel's first line


def blocks(lines: Lines, head: str, names: Sequence[str], needed: Sequence[str], usual: str) -> Iterator[Block]:
    """The blocks of a table, of which `head` is the beginning; `usual` separates where its header leaves it open.

    Raises CatalogError: a column is missing, or a row cannot be told from the next; with the line.
    """
    csv.field_size_limit(LONGEST)  # of this process: columns that nobody reads may hold whole documents
    announced = ANNOUNCED.match(head)
    separator = announced[1] if announced else _separator(head, {*names}, usual)
    if announced:
        next(lines)
    header = _header(head[announced.end() :] if announced else head, separator, spaces=True)
    padded = any(name.startswith(" ") for name in header)
    rows = _records(lines, csv.reader(lines, delimiter=separator, skipinitialspace=padded))
    header = next((fields for _, fields in rows), [])
    places = located(header, names, needed)
    yield from in_blocks(tuple(places), _rows(rows, header, places))


def _separator(head: str, names: set[str], usual: str) -> str:
    """That by which the header has most of the columns that are looked for; if none, by which it has most."""

    def found(separator: str) -> tuple[int, int]:
        header = _header(head, separator, spaces=False)
        return len(names & {plain(name) for name in header}), len(header)

    return max(usual + SEPARATORS, key=found)


def _header(head: str, separator: str, spaces: bool) -> list[str]:
    """The names of the columns, with or without the spaces before them."""
    rows = csv.reader(io.StringIO(head, newline=""), delimiter=separator, skipinitialspace=not spaces)
    return next((row for row in rows if row), [])


def _records(lines: Lines, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not empty, with its first line. Raises CatalogError where a quotation mark is never closed."""
    unclosed = "a quotation mark opens a field there and nothing closes it; a mark inside a field is written twice."
    while True:
        first = lines.number + 1
        try:
            fields = next(reader, None)
        except csv.Error:
            raise CatalogError(f"line {first}: {unclosed}") from None
        if fields is None:
            return
        if lines.ended:
            raise CatalogError(f"line {first}: {unclosed}")
        if fields:
            yield first, fields


def _rows(records: Iterator[tuple[int, list[str]]], header: list[str], places: dict[str, int]) -> Iterator[Row]:
    padded = {name for name, place in places.items() if header[place] != header[place].strip()}
    for line, fields in records:
        cells = [fields[place] if place < len(fields) else None for place in places.values()]
        for cell in cells:
            _check_text(cell, line)
        values = [cell.strip() if cell and name in padded else cell for name, cell in zip(places, cells, strict=True)]
        yield values, _fault(line, fields, len(header), None in cells)


def _check_text(cell: str | None, line: int) -> None:
    if cell is None or cell.isascii():
        return
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise CatalogError(
            f"line {line} is not in UTF-8, and its encoding cannot be told for sure. Save the table as UTF-8 (in Excel:"
            " Save as, `CSV UTF-8`)."
        ) from None


def _fault(line: int, fields: list[str], width: int, short: bool) -> str | None:
    """Why a row is not what it seems: one field too many or too few, and the others may be in the wrong column."""
    if not short and not any(field.strip() for field in islice(fields, width, None)):
        return None
    if not any(field.strip() for field in fields):  # a blank line, more or less
        return None
    return (
        f"Line {line} of its table has {len(fields)} fields, and the header {width}; a field in which the separator"
        " occurs needs quotation marks."
    )
