"""Where pairs come from: a folder in which `naming` tells the sides apart, or a table with a column for each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from infra import store
from infra.errors import CatalogError, PairError
from pipelines.catalog.listing import IMAGES, canonical
from pipelines.catalog.tables import is_table, read_table
from pipelines.pairs.jsontable import is_json_table, read_json_table
from pipelines.pairs.naming import COLUMNS, METADATA, NAMINGS, OWN, Naming

CAPTIONS = (".txt", ".caption")  # usual beside images that others train on


@dataclass(frozen=True)
class Found:
    """A pair by its name: the URIs of its pictures, of which one may be missing or there may be several.

    `edit` tells the edits of a mixed collection apart: the table's column, or the sub-folder; empty where there is one.
    """

    name: str
    edit: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return bool(self.before and self.after)

    @property
    def files(self) -> tuple[str, ...]:
        return self.before + self.after


@dataclass(frozen=True)
class Reading:
    """A folder or table as it was read, `naming` says how. What was left aside, by its path from there:

    halves  images that look like half a pair, by some naming
    images  other images
    files   what is neither image nor caption
    """

    naming: Naming
    found: list[Found]
    halves: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    path: PurePosixPath
    uri: str

    @property
    def is_image(self) -> bool:
        return self.path.suffix.lower() in IMAGES


def find_pairs(source: str) -> list[Found]:
    """Every pair of a folder, prefix or table, usable or not, in order of its name. Raises as `read_pairs` does."""
    return read_pairs(source).found


def read_pairs(source: str) -> Reading:
    """The pairs of a folder, prefix or table, and what else lies there.

    Raises:
        PairError: there is nothing there, no file is named as pairs are, or several namings are mixed.
        StoreError: the place does not answer.
    """
    tabled = (is_table(source) or is_json_table(source)) and not Path(source).is_dir()
    reading = _of_table(source) if tabled else _of_folder(canonical(source))
    if not reading.found:
        looks = f" {' and '.join(reading.halves[:3])}: this looks like half a pair." if reading.halves else ""
        raise PairError(
            f"{source}: there are no pairs.{looks} Name them NAME_before.png and NAME_after.png, or as other trainers"
            " do (see `pairs check --help`), or give a Parquet or CSV table with the columns before and after."
        )
    return reading


def found_at(before: str, after: str) -> Found:
    """A pair given by the addresses of its pictures, called as the before image is."""
    path = PurePosixPath(PurePosixPath(before).name)
    sides = (naming.side(path) for naming in NAMINGS)
    name = next((side.key[1] for side in sides if side and side.role == "before"), path.stem)
    return Found(name, "", (canonical(before),), (canonical(after),))


def _of_folder(folder: str) -> Reading:
    if store.scheme_of(folder) == "file" and not Path(folder).is_dir():
        raise PairError(f"{folder}: there is no such folder of pairs.")
    listed = store.list_objects(folder)
    files = [_File(PurePosixPath(each.uri.removeprefix(folder).lstrip("/")), each.uri) for each in listed]
    naming, found = _read(folder, files)
    used = set(chain.from_iterable(each.files for each in found))
    aside: dict[str, list[str]] = {"halves": [], "images": [], "files": [], "captions": []}
    for file in files:
        if file.uri not in used:
            aside[_kind(file)].append(str(file.path))
    return Reading(naming, found, tuple(aside["halves"]), tuple(aside["images"]), tuple(aside["files"]))


def _kind(file: _File) -> str:
    """What a file is that no pair has. A folder's name makes no half of a pair: `main` and `source` are too usual."""
    if not file.is_image:
        return "captions" if file.path.suffix.lower() in CAPTIONS else "files"
    return "halves" if any(naming.side(file.path) for naming in NAMINGS if "/" not in naming.before) else "images"


def _read(folder: str, files: Sequence[_File]) -> tuple[Naming, list[Found]]:
    """The pairs by the one naming that gives whole ones. Our own comes first: its pairs are nobody else's halves."""
    images = [file for file in files if file.is_image]
    own = _matched(OWN, images)
    taken = set(chain.from_iterable(each.files for each in own if each.whole))
    free = [file for file in images if file.uri not in taken]
    readings = [(OWN, own), *_metadata(folder, files), *((naming, _matched(naming, free)) for naming in NAMINGS[1:])]
    whole: list[tuple[Naming, list[Found]]] = []
    for naming, found in readings:
        if any(each.whole for each in found) and not any(_comparable(found, other) for _, other in whole):
            whole.append((naming, found))
    if len(whole) > 1:
        raise PairError(_mixture(folder, whole))
    return whole[0] if whole else (OWN, own)


def _comparable(found: Iterable[Found], others: Iterable[Found]) -> bool:
    """Whether one of two readings tells only what the other tells as well."""
    ours, theirs = ({each.files for each in which if each.whole} for which in (found, others))
    return ours <= theirs or theirs <= ours


def _mixture(folder: str, whole: Sequence[tuple[Naming, list[Found]]]) -> str:
    told = []
    for naming, found in whole:
        pairs = [each for each in found if each.whole]
        first = pairs[0].before[0].rpartition("/")[2]
        told.append(f"{len(pairs)} pair{'s' * (len(pairs) > 1)} named {naming} (the first is {first})")
    return (
        f"{folder}: several namings of pairs are mixed here: {'; '.join(told)}. None was taken: name all alike, or give"
        " each naming a folder of its own."
    )


def _matched(naming: Naming, files: Iterable[_File]) -> list[Found]:
    sides: dict[tuple[str, str], dict[str, list[tuple[str, bool]]]] = {}
    for file in files:
        if side := naming.side(file.path):
            sides.setdefault(side.key, {"before": [], "after": []})[side.role].append((file.uri, side.literal))
    found = []
    for (above, name), uris in sides.items():
        if all(any(literal for _, literal in which) for which in uris.values()):  # then nothing else is needed
            uris = {role: [each for each in which if each[1]] for role, which in uris.items()}
        told = PurePosixPath(above, name)
        before, after = (tuple(uri for uri, _ in uris[role]) for role in ("before", "after"))
        found.append(Found(str(told), str(told.parent).removeprefix("."), before, after))
    return sorted(found, key=lambda each: each.name)


def _metadata(folder: str, files: Iterable[_File]) -> list[tuple[Naming, list[Found]]]:
    """What the folder's own table of pairs says, where it has one that can be read as such."""
    for file in files:
        if str(file.path) in METADATA:
            try:
                reading = _of_table(file.uri)
            except PairError:
                continue  # other trainers keep other things in a file of this name
            return [(reading.naming, reading.found)]
    return []


def _of_table(source: str) -> Reading:
    refusal = None
    for naming in COLUMNS:
        try:
            return Reading(naming, _rows(source, naming))
        except CatalogError as error:
            refusal = refusal or error
    raise PairError(str(refusal)) from None


def _rows(source: str, naming: Naming) -> list[Found]:
    needed = (naming.before, naming.after)
    read = read_json_table if is_json_table(source) else read_table
    columns = read(source, (*needed, "edit"), needed)
    folder = canonical(source).rpartition("/")[0]
    edits = columns.get("edit") or [None] * len(columns[naming.before])
    rows = zip(columns[naming.before], columns[naming.after], edits, strict=True)
    return [
        Found(f"row {number}", edit or "", _located(before, folder), _located(after, folder))
        for number, (before, after, edit) in enumerate(rows, start=1)
    ]


def _located(names: str | Sequence[str] | None, folder: str) -> tuple[str, ...]:
    """A URI as it is, a relative path as seen from the table's folder."""
    return tuple(_address(name, folder) for name in ([names] if isinstance(names, str) else names or ()) if name)


def _address(name: str, folder: str) -> str:
    if store.scheme_of(name) != "file" or "://" in name:
        return name
    return store.join(folder, name) if "://" in folder else os.path.normpath(Path(folder, name))
