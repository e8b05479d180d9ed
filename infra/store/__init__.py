"""Objects under URIs: a local folder, `s3://bucket/key`, or `memory://name` (this process only).

    read, write, write_if_absent, stat, list_objects, leftovers, copy, delete, arrow

A write is atomic: a reader sees the old object or the new one, never half of one. The scheme of the URI
picks the store; a URI without a scheme, and `file://`, is a local path. No other module talks to an SDK.
Every function raises StoreError and nothing else: NotInStore where the object is missing, StoreUnavailable where
the next object would fare no better.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from infra.errors import StoreError
from infra.store import local
from infra.store.answers import be_patient
from infra.store.local import LocalStore, local_path
from infra.store.memory import MemoryStore
from infra.store.protocol import Store, Stored
from infra.store.s3 import S3Store

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = [
    "Store",
    "Stored",
    "arrow",
    "be_patient",
    "copy",
    "delete",
    "join",
    "leftovers",
    "list_objects",
    "local_path",
    "read",
    "scheme_of",
    "stat",
    "store_for",
    "write",
    "write_if_absent",
]


def read(uri: str, limit: int | None = None) -> bytes:
    """The bytes of an object, or only its first `limit` bytes. Raises NotInStore."""
    return store_for(uri).read(uri, limit)


def write(uri: str, data: bytes) -> None:
    """Write or replace an object, whole."""
    store_for(uri).write(uri, data)


def write_if_absent(uri: str, data: bytes) -> bool:
    """Write an object unless there is one. Of any number of racing writers exactly one gets True."""
    return store_for(uri).write_if_absent(uri, data)


def stat(uri: str) -> Stored | None:
    """Size and etag of an object, None if there is none."""
    return store_for(uri).stat(uri)


def list_objects(prefix: str) -> Iterator[Stored]:
    """Every object below a folder or prefix, in order of its URI; hidden names (`.name`) are passed over."""
    return store_for(prefix).list_objects(prefix)


def leftovers(prefix: str) -> Iterator[tuple[Stored, datetime]]:
    """What killed writers left half written below a folder, and when; no listing shows it, no reader sees it."""
    return store_for(prefix).leftovers(prefix)


def copy(source: str, target: str) -> None:
    """Write or replace an object with what another one holds; inside one store no byte passes through here.

    A file goes to S3 as a stream. S3 copies objects of up to 5 GB. Raises NotInStore.
    """
    if scheme_of(source) == scheme_of(target):
        store_for(source).copy(source, target)
    elif scheme_of(source) == "file" and scheme_of(target) == "s3":
        with local.opened(source) as file:
            S3Store().upload(file, target)
    else:
        write(target, read(source))


def delete(uri: str) -> None:
    """Remove an object; one that is not there is no error."""
    store_for(uri).delete(uri)


def arrow(uri: str) -> tuple["FileSystem", str]:
    """pyarrow's filesystem for a URI and the path inside it, for Parquet and other bulk tables."""
    return store_for(uri).arrow(uri)


def scheme_of(uri: str) -> str:
    """`s3` of `s3://bucket/key`; `file` of anything without a scheme."""
    match = re.match(r"([a-z][a-z0-9+.-]*)://", uri)
    return match[1] if match else "file"


def join(uri: str, *names: str) -> str:
    """A URI below another one."""
    return "/".join([uri.rstrip("/"), *names])


def store_for(uri: str) -> Store:
    """The store that serves this URI. Raises StoreError for a scheme we do not speak."""
    stores: dict[str, Store] = {"file": LocalStore(), "s3": S3Store(), "memory": MemoryStore()}
    try:
        return stores[scheme_of(uri)]
    except KeyError:
        raise StoreError(f"{uri}: only local paths, s3:// and memory:// addresses can be used.") from None
