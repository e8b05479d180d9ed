"""Keys in the store: `<serving>/keys/<id>.json`, and beside it `<id>.revoked.json` once a key is revoked.

Both are written once and never changed, so a key that was revoked stays revoked. A key reads `et_<id>_<secret>`; its
secret is 32 random bytes, of which only the SHA-256 is kept: nobody can guess so many bits, so nothing would be won
by a slow hash. The secret that signs webhooks is kept as it is, for the server has to sign with it.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from infra import store
from infra.errors import NotInStore, UsageError

SCOPES = {
    "transfer": "edit images, and see models and adapters",
    "jobs": "submit jobs over catalogs, and see and cancel one's own",
    "admin": "all of it, and everybody's jobs",
}
SECRET_BYTES = 32
RECORD, REVOKED = ".json", ".revoked.json"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"et_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is stored of a key.

    rate            requests per minute, None for any number
    concurrency     requests at the same time, None for any number
    secret_sha256   of the secret part, hexadecimal
    signing_secret  `whsec_…`, with which webhooks are signed
    revoked_at      None for one that is valid
    """

    key_id: str
    name: str
    scopes: tuple[str, ...]
    rate: int | None = None
    concurrency: int | None = None
    created_at: str
    secret_sha256: str = field(repr=False)
    signing_secret: str = field(repr=False)
    revoked_at: str | None = None


@dataclass(frozen=True)
class Directory:
    """Which keys there are: the etag of each one's record, and the ids of those that are revoked."""

    etags: Mapping[str, str]
    revoked: frozenset[str]

    def __bool__(self) -> bool:
        """Whether anybody ever made a key."""
        return bool(self.etags or self.revoked)


def create(
    address: str, name: str, scopes: Sequence[str], rate: int | None = None, concurrency: int | None = None
) -> tuple[Key, str]:
    """Store a new key: its record, and the key itself, which nobody can tell again. Raises UsageError, StoreError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a key: use small letters, digits, dots, dashes and underscores, 64 at"
            " most, a letter or digit first."
        )
    if not scopes or set(scopes) - SCOPES.keys():
        raise UsageError(f"A key needs scopes, each one of {', '.join(SCOPES)}.")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = Key(
        key_id=secrets.token_hex(8),
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        rate=rate,
        concurrency=concurrency,
        created_at=_now(),
        secret_sha256=hashed(secret),
        signing_secret=f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}",
    )
    _make_folder(address)
    if not store.write_if_absent(_record(address, key.key_id), json.dumps(_stored(key)).encode()):
        raise UsageError(f"There is a key {key.key_id} in {address} already; run the command again.")
    return key, f"et_{key.key_id}_{secret}"


def revoke(address: str, key_id: str) -> Key:
    """Write the tombstone of a key; one that is revoked stays as it is. Raises UsageError if there is none."""
    key = read(address, key_id)
    store.write_if_absent(_tombstone(address, key_id), json.dumps({"revoked_at": _now()}).encode())
    return replace(key, revoked_at=_revoked_at(address, key_id))


def listed(address: str) -> list[Key]:
    """All keys, the oldest first, the revoked ones among them. Raises UsageError for a damaged record."""
    there = directory(address)
    found = [read(address, key_id) for key_id in there.etags]
    told = [
        replace(key, revoked_at=_revoked_at(address, key.key_id)) if key.key_id in there.revoked else key
        for key in found
    ]
    return sorted(told, key=lambda key: (key.created_at, key.key_id))


def directory(address: str) -> Directory:
    """Which keys there are, by one listing. Raises StoreError."""
    etags, revoked = dict[str, str](), set[str]()
    for stored in store.list_objects(store.join(address, "keys")):
        name = PurePosixPath(stored.uri).name
        if name.endswith(REVOKED):
            revoked.add(name.removesuffix(REVOKED))
        elif name.endswith(RECORD):
            etags[name.removesuffix(RECORD)] = stored.etag
    return Directory(etags, frozenset(revoked))


def read(address: str, key_id: str) -> Key:
    """The record of a key, whether or not it is revoked. Raises UsageError if there is none, or a damaged one."""
    uri = _record(address, key_id)
    try:
        return _key(key_id, json.loads(store.read(uri)))
    except NotInStore:
        listing = "`edit-transfer keys list` shows which there are"
        raise UsageError(f"There is no key {key_id} in {address}; {listing}.") from None
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{uri}: this is not the record of a key; delete it and create another key.") from None


def parsed(token: str) -> tuple[str, str] | None:
    """Id and secret of what a client sent; None if it cannot be a key."""
    match = _KEY.fullmatch(token)
    return (match[1], match[2]) if match else None


def hashed(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(key_id: str, told: dict[str, Any]) -> Key:
    """A record as it was read. Raises ValueError, TypeError or KeyError for anything else."""
    for limit in (told["rate"], told["concurrency"]):
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(limit)
    texts = {name: str(told[name]) for name in ("name", "created_at", "secret_sha256", "signing_secret")}
    scopes = tuple(scope for scope in SCOPES if scope in told["scopes"])
    return Key(key_id=key_id, scopes=scopes, rate=told["rate"], concurrency=told["concurrency"], **texts)


def _stored(key: Key) -> dict[str, object]:
    return {name: value for name, value in asdict(key).items() if name != "revoked_at"}


def _revoked_at(address: str, key_id: str) -> str:
    """When it was; a tombstone that cannot be read is one all the same."""
    try:
        return str(json.loads(store.read(_tombstone(address, key_id)))["revoked_at"])
    except (ValueError, TypeError, KeyError):
        return "unknown"


def _record(address: str, key_id: str) -> str:
    return store.join(address, "keys", f"{_checked(key_id)}{RECORD}")


def _tombstone(address: str, key_id: str) -> str:
    return store.join(address, "keys", f"{_checked(key_id)}{REVOKED}")


def _checked(key_id: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{16}", key_id):
        raise UsageError(f"{key_id!r} is not the id of a key: sixteen hexadecimal digits, the part after `et_`.")
    return key_id


def _make_folder(address: str) -> None:
    """On a disk, signing secrets are for the eyes of the owner alone."""
    if store.scheme_of(address) == "file":
        folder = store.local_path(store.join(address, "keys"))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: keys cannot be kept there ({(error.strerror or '').lower()}).") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")  # keys are listed in the order they were made
