"""JSON lines: an object a line, each with the keys that it likes."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from infra.errors import CatalogError
from pipelines.catalog.tables.cells import ROWS_AT_A_TIME, Block, Row, in_blocks, located, text_of
from pipelines.catalog.tables.lines import Lines

Object = tuple[int, dict[str, Any]]  # with its line


def blocks(lines: Lines, names: Sequence[str], needed: Sequence[str]) -> Iterator[Block]:
    """The blocks of a table, with all named columns: whether a later line has one, nobody knows.

    Raises CatalogError: no object has a needed key, or a line is no object; with the line.
    """
    objects = _objects(lines)
    first = list(islice(objects, ROWS_AT_A_TIME))
    keys = dict.fromkeys(key for _, told in first for key in told)
    located([*keys], needed, needed)
    yield from in_blocks(names, _rows(chain(first, objects), names, {*needed}))


def _objects(lines: Lines) -> Iterator[Object]:
    for line in lines:
        if line.strip():
            yield lines.number, _object(lines.number, line)


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deeply, or holds a number that is too long")
        hint = " Write an object a line, not one list." if line.lstrip().startswith("[") else ""
        raise CatalogError(f"line {number} is no JSON object ({reason}).{hint}") from None
    if not isinstance(told, dict):
        raise CatalogError(
            f'line {number} is no JSON object. Write one for every image: {{"uri": ...}}, each in a line.'
        )
    return told


def _rows(objects: Iterator[Object], names: Sequence[str], needed: set[str]) -> Iterator[Row]:
    @lru_cache(maxsize=1024)
    def own_names(keys: tuple[str, ...]) -> dict[str, str]:
        return {name: keys[place] for name, place in located(keys, names).items()}

    for line, told in objects:
        own = own_names(tuple(told))
        cells = {name: told[own[name]] for name in names if name in own}
        nested = [name for name, value in cells.items() if isinstance(value, list | dict)]
        if needed.intersection(nested):
            raise CatalogError(f"line {line}: `{nested[0]}` is a list or an object, not text.")
        texts = [None if name in nested else text_of(cells.get(name)) for name in names]
        _check_text(line, texts)
        yield texts, f"Line {line} of its table has a list or an object as `{nested[0]}`, not text." if nested else None


def _check_text(line: int, texts: list[str | None]) -> None:
    try:
        "".join(filter(None, texts)).encode()
    except UnicodeEncodeError:
        raise CatalogError(f"line {line} is not in UTF-8. Save the table as UTF-8.") from None
