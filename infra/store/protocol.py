"""What a store is: the verbs, and the record of one object."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Stored:
    """An object: where it is, its size in bytes, and an etag that changes when it is written again."""

    uri: str
    size: int
    etag: str


class Store(Protocol):
    """What every kind of store can do. `write_if_absent` says whether this writer was the one that wrote."""

    def read(self, uri: str, limit: int | None = None) -> bytes: ...
    def write(self, uri: str, data: bytes) -> None: ...
    def write_if_absent(self, uri: str, data: bytes) -> bool: ...
    def stat(self, uri: str) -> Stored | None: ...
    def list_objects(self, prefix: str) -> Iterator[Stored]: ...
    def leftovers(self, prefix: str) -> Iterator[tuple[Stored, datetime]]: ...
    def copy(self, source: str, target: str) -> None: ...
    def delete(self, uri: str) -> None: ...
    def arrow(self, uri: str) -> tuple["FileSystem", str]: ...
