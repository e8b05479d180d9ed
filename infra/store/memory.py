"""Objects in this process."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from infra.errors import NotInStore, StoreError
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_MEMORY: dict[str, bytes] = {}
_MEMORY_LOCK = threading.Lock()


class MemoryStore:
    """A store that lives as long as this process: for trying things and for tests."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        try:
            return _MEMORY[uri][:limit]
        except KeyError:
            raise NotInStore(f"{uri}: there is no such object.") from None

    def write(self, uri: str, data: bytes) -> None:
        _MEMORY[uri] = data

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        with _MEMORY_LOCK:
            return uri not in _MEMORY and _MEMORY.setdefault(uri, data) is data

    def stat(self, uri: str) -> Stored | None:
        data = _MEMORY.get(uri)
        return None if data is None else Stored(uri, len(data), hashlib.md5(data).hexdigest())

    def list_objects(self, prefix: str) -> Iterator[Stored]:
        folder = prefix.rstrip("/") + "/"
        found = (self.stat(uri) for uri in sorted(_MEMORY) if uri.startswith(folder))
        return (entry for entry in found if entry and "/." not in entry.uri[len(folder) - 1 :])

    def leftovers(self, prefix: str) -> Iterator[tuple[Stored, datetime]]:
        return iter(())

    def copy(self, source: str, target: str) -> None:
        self.write(target, self.read(source))

    def delete(self, uri: str) -> None:
        _MEMORY.pop(uri, None)

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        raise StoreError(f"{uri}: tables are not kept in memory; use a folder or a bucket.")
