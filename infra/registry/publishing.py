"""Publishing: claim a number, write the files, seal them with `adapter.json`. Only the last makes a version."""

import uuid
from typing import Any

from infra import store
from infra.errors import AdapterDamaged, RegistryError
from infra.registry import document, layout, reading
from infra.registry.lease import lease
from infra.registry.reading import Version

WRITTEN_HERE = frozenset({"name", "version", "publication", "created_at", "by", "files", "digest", reading.ABANDONED})


def publish(
    registry: str, name: str, files: dict[str, bytes], about: dict[str, Any], publication: str | None = None
) -> Version:
    """Make a new version of these files, under the next number.

    about        what is known of the adapter; of `scores` the first is the one that tables show
    publication  names this piece of work. What a killed publisher began under it is gone on with, under the same
                 number; what is finished under it is returned as it is. Left out, every call is a piece of work.

    Raises RegistryError for a bad name, path or `about`, and LeaseHeld if another process is at this publication.
    """
    layout.checked_name(name)
    about = _checked(files, about)
    if publication is None:
        return _published(registry, name, files, about | {"publication": uuid.uuid4().hex}, None)
    purpose = f"publish-{document.sha256(publication.encode())[:16]}"
    with lease(registry, name, purpose):
        there = _begun(registry, name, publication)
        if isinstance(there, Version):
            return there
        return _published(registry, name, files, about | {"publication": publication}, there)


def _checked(files: dict[str, bytes], about: dict[str, Any]) -> dict[str, Any]:
    for path in files:
        layout.checked_path(path)
    taken = sorted(WRITTEN_HERE & about.keys())
    if taken:
        raise RegistryError(f"What is told about an adapter cannot have {', '.join(taken)}: publishing writes that.")
    return document.plain(about)


def _begun(registry: str, name: str, publication: str) -> Version | int | None:
    """The version of that publication, or the number that was claimed for it and is not finished."""
    for number, files in reversed(reading.folders(registry, name).items()):
        if layout.DELETED in files or layout.CLAIM not in files:
            continue
        if _claim(registry, name, number).get("publication") == publication:
            return reading.peek(registry, name, number) if layout.ADAPTER in files else number
    return None


def _claim(registry: str, name: str, number: int) -> dict[str, Any]:
    """A claim nobody can read is nobody's."""
    try:
        return document.read(store.join(layout.version_uri(registry, name, number), layout.CLAIM))
    except AdapterDamaged:
        return {}


def _published(registry: str, name: str, files: dict[str, bytes], about: dict[str, Any], number: int | None) -> Version:
    while True:
        number = number or _claimed(registry, name, about["publication"])
        uri = layout.version_uri(registry, name, number)
        for path, data in files.items():
            store.write(store.join(uri, path), data)
        version = _finished(registry, name, number, files, about)
        if version:
            return version
        number = None


def _claimed(registry: str, name: str, publication: str) -> int:
    claim = document.encoded({"publication": publication, "by": document.me(), "at": document.now().isoformat()})
    number = max(reading.folders(registry, name), default=0) + 1
    while not store.write_if_absent(store.join(layout.version_uri(registry, name, number), layout.CLAIM), claim):
        number += 1
    return number


def _finished(registry: str, name: str, number: int, files: dict[str, bytes], about: dict[str, Any]) -> Version | None:
    """None if the claim was given up for dead meanwhile; what somebody else finished under it is as good."""
    uri = layout.version_uri(registry, name, number)
    head = {"name": name, "version": number, "created_at": document.now().isoformat(timespec="milliseconds")}
    listed = {path: _fingerprint(data) for path, data in sorted(files.items())}
    sealed = document.sealed(head | {"by": document.me()} | about | {"files": listed})
    store.write_if_absent(store.join(uri, layout.ADAPTER), document.encoded(sealed))
    return reading.peek(registry, name, number)


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"sha256": document.sha256(data), "size": len(data)}
