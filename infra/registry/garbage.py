"""Collecting what killed publishers, deletions and lease holders left, and nobody will use again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra import store
from infra.errors import AdapterDamaged, NotInStore
from infra.registry import document, layout, moves, reading, removal
from infra.registry.lease import ended
from infra.store import Stored

A_DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Garbage:
    """An object that was removed, or with a dry run would be."""

    uri: str
    size: int
    why: str


def collect(
    registry: str, name: str | None = None, older_than: timedelta = A_DAY, dry_run: bool = False
) -> list[Garbage]:
    """Remove what will not be used again, of one adapter or of all: claims, tombstones and whole versions stay.

    What is younger than `older_than` may still be worked on, and stays too. Raises StoreError.
    """
    before = document.now() - older_than
    names = [layout.checked_name(name)] if name else _every_name(registry)
    found = [each for name in names for each in _garbage(registry, name, before, dry_run)]
    if not dry_run:
        for each in found:
            store.delete(each.uri)
    return found


def _every_name(registry: str) -> list[str]:
    """Also those without a finished version."""
    return sorted({path.parts[0] for path, _ in layout.below(registry) if len(path.parts) > 2})


def _garbage(registry: str, name: str, before: datetime, dry_run: bool) -> Iterator[Garbage]:
    for number, files in reading.folders(registry, name).items():
        found, why = _of_version(registry, name, number, files, before, dry_run)
        yield from (Garbage(each.uri, each.size, why) for each in found)
    yield from _of_leases(registry, name, before)
    for half, written in store.leftovers(layout.name_uri(registry, name)):
        if written < before:
            yield Garbage(half.uri, half.size, "half written by a killed process")


def _of_version(
    registry: str, name: str, number: int, files: dict[str, Stored], before: datetime, dry_run: bool
) -> tuple[list[Stored], str]:
    if layout.DELETED in files:
        gone = _written(files, layout.DELETED, before) and not moves.pointed_to(registry, name, number)
        return removal.remains(files) if gone else [], "deleted version"
    if layout.ADAPTER in files:
        return _of_finished(registry, name, number, files, before, dry_run)
    given_up = _written(files, layout.CLAIM, before) and (dry_run or _abandon(registry, name, number))
    return removal.remains(files) if given_up else [], "never finished"


def _of_finished(
    registry: str, name: str, number: int, files: dict[str, Stored], before: datetime, dry_run: bool
) -> tuple[list[Stored], str]:
    try:
        about = document.read(files[layout.ADAPTER].uri)
    except (AdapterDamaged, NotInStore):  # somebody should look at it; somebody is deleting it
        return [], ""
    if reading.ABANDONED in about:  # by a collection that was killed
        return [] if dry_run or not _close(registry, name, number) else removal.remains(files), "never finished"
    if not document.is_sealed(about) or datetime.fromisoformat(about["created_at"]) >= before:
        return [], ""
    own = {layout.CLAIM, layout.ADAPTER, *about["files"]}
    return [found for path, found in files.items() if path not in own], "of an attempt before"


def _written(files: dict[str, Stored], path: str, before: datetime) -> bool:
    """Whether a claim or tombstone is there and old; what cannot be read is for people to look at."""
    try:
        return path in files and datetime.fromisoformat(document.read(files[path].uri)["at"]) < before
    except (KeyError, TypeError, ValueError, NotInStore, AdapterDamaged):
        return False


def _abandon(registry: str, name: str, number: int) -> bool:
    """Whether the claim is closed. Its publisher may be about to finish: the first to write adapter.json decides."""
    marker = document.encoded({reading.ABANDONED: document.now().isoformat()})
    written = store.write_if_absent(removal.address(registry, name, number, layout.ADAPTER), marker)
    return written and _close(registry, name, number)


def _close(registry: str, name: str, number: int) -> bool:
    """The tombstone comes before the marker goes, and a publisher looks for it last: one of them stops him."""
    store.write(removal.address(registry, name, number, layout.DELETED), removal.stamp())
    store.delete(removal.address(registry, name, number, layout.ADAPTER))
    return True


def _of_leases(registry: str, name: str, before: datetime) -> Iterator[Garbage]:
    for _, found in layout.below(layout.leases_uri(registry, name)):
        try:
            over = ended(document.read(found.uri)) < before
        except (NotInStore, AdapterDamaged):
            continue
        if over:
            yield Garbage(found.uri, found.size, "lease that is over")
