"""The files of a version: read and copied, and never handed out unless they are what was published."""

from collections.abc import Iterable
from pathlib import Path

from infra import store
from infra.errors import AdapterDamaged, AdapterNotFound, NotInStore, RegistryError
from infra.registry import document, layout
from infra.registry.reading import Version


def read_file(version: Version, path: str) -> bytes:
    """One file. Raises RegistryError if it has no such file, AdapterDamaged if that is not what was published."""
    if path not in version.files:
        raise RegistryError(f"{version.ref} has no file {path}; it has {', '.join(version.files) or 'none'}.")
    uri = store.join(version.uri, layout.checked_path(path))
    try:
        data = store.read(uri)
    except NotInStore:
        raise _missing(version, uri) from None
    if document.sha256(data) != version.files[path]["sha256"]:
        raise AdapterDamaged(f"{uri}: this is not the file that was published with {version.ref}.")
    return data


def fetch(version: Version, folder: Path, paths: Iterable[str] | None = None) -> Path:
    """A copy of all files, or of some, below a local folder, which is returned. Right copies are kept.

    Any number of processes may fetch into one folder at once. Raises AdapterDamaged, naming the file.
    """
    for path in version.files if paths is None else paths:
        local = folder / layout.checked_path(path)
        if path not in version.files or not _is_copied(version, path, local):
            store.write(str(local), read_file(version, path))
    return folder


def _is_copied(version: Version, path: str, local: Path) -> bool:
    try:
        return document.sha256(store.read(str(local))) == version.files[path]["sha256"]
    except NotInStore:
        return False


def _missing(version: Version, uri: str) -> Exception:
    if store.stat(store.join(version.uri, layout.DELETED)):
        return AdapterNotFound(f"{version.ref} was deleted.")
    return AdapterDamaged(f"{uri}: this file of {version.ref} is missing.")
