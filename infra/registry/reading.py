"""Reading versions. Only a version with an `adapter.json`, sealed and not deleted, is there at all."""

import difflib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from infra import store
from infra.errors import AdapterDamaged, AdapterNotFound, NotInStore
from infra.registry import document, layout
from infra.store import Stored

ABANDONED = "abandoned"  # key of an adapter.json that closes a claim which was never finished


@dataclass(frozen=True)
class Version:
    """One immutable version of an adapter. `about` is its whole adapter.json."""

    name: str
    number: int
    digest: str
    about: dict[str, Any]
    uri: str

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Path -> sha256 and size."""
        return self.about["files"]


def names(registry: str) -> list[str]:
    """Every adapter with at least one version, in order."""
    finished: set[tuple[str, str]] = set()
    deleted: set[tuple[str, str]] = set()
    for path, _ in layout.below(registry):
        match path.parts:
            case (name, "versions", number, layout.ADAPTER):
                finished.add((name, number))
            case (name, "versions", number, layout.DELETED):
                deleted.add((name, number))
    return sorted({name for name, _ in finished - deleted})


def folders(registry: str, name: str) -> dict[int, dict[str, Stored]]:
    """Number -> path -> object, of every number that was ever claimed, ascending."""
    found: dict[int, dict[str, Stored]] = defaultdict(dict)
    for path, entry in layout.below(layout.versions_uri(registry, name)):
        if path.parts[0].isdecimal() and len(path.parts) > 1:
            found[int(path.parts[0])]["/".join(path.parts[1:])] = entry
    return dict(sorted(found.items()))


def numbers(registry: str, name: str) -> list[int]:
    """The numbers of all finished versions, ascending."""
    return [
        number
        for number, files in folders(registry, name).items()
        if layout.ADAPTER in files and layout.DELETED not in files
    ]


def versions(registry: str, name: str) -> list[Version]:
    """All versions, ascending. Raises AdapterDamaged if one of them is not what was published."""
    found = (peek(registry, name, number) for number in numbers(registry, name))
    return [version for version in found if version]


def newest(registry: str, name: str) -> Version | None:
    """The version with the highest number. Raises AdapterDamaged."""
    found = (peek(registry, name, number) for number in reversed(numbers(registry, name)))
    return next((version for version in found if version), None)


def find(registry: str, name: str, number: int) -> Version:
    """One version. Raises AdapterNotFound, and AdapterDamaged if it is not what was published."""
    found = peek(registry, name, number)
    if found:
        return found
    if is_deleted(registry, name, number):
        raise AdapterNotFound(f"{name}@{number} was deleted from {registry}.")
    raise AdapterNotFound(f"There is no {name}@{number} in {registry}{_what_there_is(registry, name)}")


def peek(registry: str, name: str, number: int) -> Version | None:
    """One version, None if there is none. Raises AdapterDamaged if it is not what was published."""
    uri = layout.version_uri(registry, name, number)
    try:
        about = document.read(store.join(uri, layout.ADAPTER))
    except NotInStore:
        return None
    if ABANDONED in about or is_deleted(registry, name, number):
        return None
    if not document.is_sealed(about) or (about.get("name"), about.get("version")) != (name, number):
        raise AdapterDamaged(f"{uri}/{layout.ADAPTER}: this is not the {name}@{number} that was published.")
    return Version(name, number, about["digest"], about, uri)


def is_deleted(registry: str, name: str, number: int) -> bool:
    """Whether a version has a tombstone."""
    return store.stat(store.join(layout.version_uri(registry, name, number), layout.DELETED)) is not None


def not_found(registry: str, name: str) -> AdapterNotFound:
    """The error for a name without versions: it says what comes close."""
    return AdapterNotFound(f"There is no adapter {name} in {registry}{_similar(registry, name)}")


def _what_there_is(registry: str, name: str) -> str:
    there = numbers(registry, name)
    if not there:
        return _similar(registry, name)
    return f"; its versions are {', '.join(map(str, there[-10:]))}."


def _similar(registry: str, name: str) -> str:
    there = names(registry)
    close = difflib.get_close_matches(name, there) or there[:5]
    return f"; did you mean {', '.join(close)}?" if close else ", which is empty."
