"""A numbered log: 000001.json, 000002.json, … below one address. The highest number rules, none is written twice.

Aliases and leases are such logs. Compare-and-swap is to append the number after the latest one that was seen.
"""

import re
from typing import Any

from infra import store
from infra.errors import NotInStore
from infra.registry import document, layout

_ENTRY = re.compile(r"(\d{6,})\.json")


def numbers(uri: str) -> list[int]:
    """The numbers of all entries, ascending."""
    found = (_ENTRY.fullmatch(str(path)) for path, _ in layout.below(uri))
    return sorted(int(match[1]) for match in found if match)


def free(uri: str) -> int:
    """The number after the highest."""
    return (numbers(uri) or [0])[-1] + 1


def entries(uri: str) -> list[tuple[int, dict[str, Any]]]:
    """All entries, ascending. Raises AdapterDamaged for one that is no JSON object."""
    read = ((number, _read(uri, number)) for number in numbers(uri))
    return [(number, entry) for number, entry in read if entry is not None]


def latest(uri: str) -> tuple[int, dict[str, Any]] | None:
    """The entry that rules, None where there is none. Raises AdapterDamaged."""
    while there := numbers(uri):
        entry = _read(uri, there[-1])
        if entry is not None:
            return there[-1], entry
    return None


def append(uri: str, number: int, entry: dict[str, Any]) -> bool:
    """Write the entry of that number. Of any number of racing writers exactly one gets True."""
    return store.write_if_absent(entry_uri(uri, number), document.encoded(document.plain(entry)))


def entry_uri(uri: str, number: int) -> str:
    """The address of one entry."""
    return store.join(uri, f"{number:06d}.json")


def _read(uri: str, number: int) -> dict[str, Any] | None:
    """None for an entry that was collected as garbage since it was listed."""
    try:
        return document.read(entry_uri(uri, number))
    except NotInStore:
        return None
