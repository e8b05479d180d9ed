"""Tables of pairs as JSON: one list of objects, or an object a line; a side may be a list of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from infra import store
from infra.errors import CatalogError
from pipelines.catalog.tables.cells import located, text_of


def is_json_table(name: str) -> bool:
    """Whether a file of this name is meant as such a table."""
    return PurePosixPath(name).suffix.lower() in (".json", ".jsonl", ".ndjson")


def read_json_table(uri: str, names: Sequence[str], needed: Sequence[str]) -> dict[str, list[Any]]:
    """Those of the named columns that its objects have, whole: text, lists of text, or None.

    Raises CatalogError, NotInStore.
    """
    try:
        rows = _parsed(store.read(uri).decode("utf-8-sig"))
        keys = list(dict.fromkeys(key for row in rows for key in row))
        places = located(keys, names, needed)
        return {name: [_text(name, row.get(keys[place])) for row in rows] for name, place in places.items()}
    except UnicodeError:
        raise CatalogError(f"{uri}: this is not in UTF-8. Save it as UTF-8.") from None
    except CatalogError as error:
        raise CatalogError(f"{uri}: {error}") from None


def _parsed(text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = [_line(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogError("this is no table of pairs; it takes a list of objects, or an object a line.")
    return rows


def _line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"line {number} is not JSON ({error}).") from None


def _text(name: str, value: Any) -> Any:
    """A cell, or the cells of a list. Raises UnicodeError for text that is none."""
    if isinstance(value, list) and not any(isinstance(each, list) for each in value):
        return [_text(name, each) for each in value]
    if isinstance(value, list | dict):
        raise CatalogError(f"the column `{name}` holds an object or lists of lists, not text.")
    text = text_of(value)
    (text or "").encode()
    return text
