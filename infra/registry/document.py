"""The JSON documents of a registry: written in one way only, sealed with a digest, read with suspicion."""

import getpass
import hashlib
import json
import socket
from datetime import UTC, datetime
from typing import Any

from infra import store
from infra.errors import AdapterDamaged, RegistryError


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it will be read back. Raises RegistryError for what JSON cannot hold."""
    try:
        return json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RegistryError(f"This cannot be kept in a registry: {error}.") from None


def encoded(document: dict[str, Any]) -> bytes:
    """The bytes of a document, for people too."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its `digest`: sha256 over the canonical JSON of everything else in it."""
    return document | {"digest": _digest(document)}


def _digest(document: dict[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def read(uri: str) -> dict[str, Any]:
    """A document. Raises NotInStore, and AdapterDamaged for what is no JSON object."""
    try:
        document = json.loads(store.read(uri))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise AdapterDamaged(f"{uri}: this is not what was written there; it is no JSON object.")
    return document


def is_sealed(document: dict[str, Any]) -> bool:
    """Whether the digest is that of the rest."""
    return document.get("digest") == _digest(document)


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def me() -> str:
    """Who writes: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
