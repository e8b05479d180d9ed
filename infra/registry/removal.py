"""Deleting a version. Its claim and a tombstone stay, so that its number is never used again."""

from infra import store
from infra.errors import AdapterDamaged, AdapterInUse, AdapterNotFound
from infra.registry import document, layout, moves, reading
from infra.store import Stored

STAYING = (layout.CLAIM, layout.DELETED)


def delete(registry: str, name: str, number: int, by: str | None = None) -> None:
    """Delete a version. Its number stays taken. What a killed deletion leaves is invisible, and garbage.

    Raises AdapterNotFound if there is none, and AdapterInUse while an alias points to it.
    """
    _find(registry, name, number)
    _refuse_in_use(registry, name, number)
    tombstone = address(registry, name, number, layout.DELETED)
    if not store.write_if_absent(tombstone, stamp(by)):
        raise AdapterNotFound(f"{name}@{number} was deleted from {registry}.")
    try:
        _refuse_in_use(registry, name, number)  # a promotion may have come before the tombstone
    except AdapterInUse:
        store.delete(tombstone)
        raise
    for found in remains(reading.folders(registry, name)[number]):
        store.delete(found.uri)


def _find(registry: str, name: str, number: int) -> None:
    """A damaged version is there, and may be deleted."""
    try:
        reading.find(registry, name, number)
    except AdapterDamaged:
        return


def _refuse_in_use(registry: str, name: str, number: int) -> None:
    pointing = moves.pointed_to(registry, name, number)
    if pointing:
        raise AdapterInUse(
            f"{name}@{number} is what {' and '.join(pointing)} of {name} means; promote another version first."
        )


def remains(files: dict[str, Stored]) -> list[Stored]:
    """What a deletion takes away."""
    return [found for path, found in sorted(files.items()) if path not in STAYING]


def address(registry: str, name: str, number: int, path: str) -> str:
    """The address of one object of a version."""
    return store.join(layout.version_uri(registry, name, number), path)


def stamp(by: str | None = None) -> bytes:
    """What a tombstone says."""
    return document.encoded({"by": by or document.me(), "at": document.now().isoformat(timespec="milliseconds")})
