"""Where pairs come from: a folder of `NAME_before.*` and `NAME_after.*`, or a table with `before, after[, edit]`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra import store
from infra.errors import CatalogError, PairError
from pipelines.catalog.listing import IMAGES, canonical
from pipelines.catalog.tables import TABLES, read_table

ROLE = re.compile(r"(?P<name>.+)_(?P<role>before|after)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A pair by its name: the URIs of its pictures, of which one may be missing or there may be several.

    `edit` tells the edits of a mixed collection apart: the table's column, or the sub-folder; empty where there is one.
    """

    name: str
    edit: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def find_pairs(source: str) -> list[Found]:
    """Every pair of a folder, prefix or table, usable or not, in order of its name.

    Raises:
        PairError: there is nothing there, or no file is named as pairs are.
        StoreError: the place does not answer.
    """
    found = _of_table(source) if PurePosixPath(source).suffix.lower() in TABLES else _of_folder(canonical(source))
    if not found:
        raise PairError(
            f"{source}: there are no pairs. Name them NAME_before.png and NAME_after.png, or give a Parquet or CSV"
            " table with the columns before and after."
        )
    return found


def found_at(before: str, after: str) -> Found:
    """A pair given by the addresses of its pictures, called as the before image is."""
    name = PurePosixPath(before).stem
    match = ROLE.fullmatch(name)
    return Found(match["name"] if match else name, "", (canonical(before),), (canonical(after),))


def _of_folder(folder: str) -> list[Found]:
    if store.scheme_of(folder) == "file" and not Path(folder).is_dir():
        raise PairError(f"{folder}: there is no such folder of pairs.")
    return _matched((stored.uri.removeprefix(folder).lstrip("/"), stored.uri) for stored in store.list_objects(folder))


def _matched(files: Iterable[tuple[str, str]]) -> list[Found]:
    sides: dict[str, dict[str, list[str]]] = {}
    for relative, uri in files:
        path = PurePosixPath(relative)
        match = ROLE.fullmatch(path.stem)
        if match and path.suffix.lower() in IMAGES:
            name = str(path.parent / match["name"])
            sides.setdefault(name, {"before": [], "after": []})[match["role"].lower()].append(uri)
    return [
        Found(name, str(PurePosixPath(name).parent).removeprefix("."), tuple(uris["before"]), tuple(uris["after"]))
        for name, uris in sorted(sides.items())
    ]


def _of_table(source: str) -> list[Found]:
    try:
        columns = read_table(source, ("before", "after", "edit"), needed=("before", "after"))
    except CatalogError as error:
        raise PairError(str(error)) from None
    folder = canonical(source).rpartition("/")[0]
    edits = columns.get("edit") or [None] * len(columns["before"])
    rows = zip(columns["before"], columns["after"], edits, strict=True)
    return [
        Found(f"row {number}", edit or "", _located(before, folder), _located(after, folder))
        for number, (before, after, edit) in enumerate(rows, start=1)
    ]


def _located(name: str | None, folder: str) -> tuple[str, ...]:
    """A URI as it is, a relative path as seen from the table's folder."""
    if not name:
        return ()
    if store.scheme_of(name) != "file" or "://" in name:
        return (name,)
    return (store.join(folder, name) if "://" in folder else os.path.normpath(Path(folder, name)),)
