"""Tables of pairs as JSON: one list of objects, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from infra import store
from infra.errors import CatalogError

JSON_TABLES = (".json", ".jsonl")


def read_json_table(uri: str, names: Sequence[str], needed: Sequence[str]) -> dict[str, list[Any]]:
    """Those of the named columns that its objects have, whole: text, lists of text, or None. Raises CatalogError."""
    rows = _parsed(uri, store.read(uri).decode("utf-8-sig", errors="replace"))
    known = list(dict.fromkeys(key for row in rows for key in row))
    missing = " and ".join(f"`{name}`" for name in needed if name not in known)
    if missing:
        raise CatalogError(f"{uri}: the table needs a column {missing}; it has {', '.join(known) or 'none'}.")
    return {name: [_text(uri, name, row.get(name)) for row in rows] for name in names if name in known}


def _parsed(uri: str, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError:
        rows = [_line(uri, number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogError(f"{uri}: this is no table; it takes a list of objects, or an object a line.")
    return rows


def _line(uri: str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CatalogError(f"{uri}: line {number} is not JSON ({error}).") from None


def _text(uri: str, name: str, value: Any) -> Any:
    """A value as it may be; numbers become text."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise CatalogError(f"{uri}: the column `{name}` holds {type(value).__name__}, not text.")
