"""Which addresses a request may name: those below configured prefixes, whatever way they are spelled."""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from infra.errors import RequestError, UsageError
from serving.access import Caller

OPTION = "--job-prefix"  # of `edit-transfer serve`
NAME, KEY_ID = "{name}", "{key}"  # in a prefix: the name and the id of the caller's key
DECODINGS = 5  # of percent-encoding within percent-encoding; what goes on longer is refused

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NEVER = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Places:
    """`prefixes` may be used; `reserved` may not, nor what holds them. Raises UsageError for bad prefixes."""

    prefixes: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for prefix in self.prefixes:
            try:
                normal(prefix.replace(NAME, "name").replace(KEY_ID, "key"))
            except ValueError as error:
                raise UsageError(f"{OPTION} {prefix}: {error}.") from None

    def check_any(self) -> None:
        """Raise RequestError unless jobs may work somewhere."""
        if not self.prefixes:
            raise RequestError(f"This endpoint takes no jobs: start it with {OPTION} to say where they may work.")

    def checked(self, address: str, param: str, caller: Caller, glob: bool = False) -> str:
        """An address as it is used from here on, in its one spelling. Raises RequestError, naming `param`."""
        self.check_any()
        try:
            place = normal(address)
        except ValueError as error:
            raise RequestError(f"{param}: {error}.", param) from None
        if _MAGIC.search(place) and not glob:
            raise RequestError(f"{param}: wildcards can only be in an input on a disk.", param)
        allowed = any(_is_below(place, prefix) for prefix in self._of(caller))
        if not allowed or any(_is_below(place, kept) or _is_below(kept, place) for kept in self._kept()):
            raise RequestError(f"{param}: this endpoint may not work there; ask its operator for a prefix.", param)
        return place

    def _of(self, caller: Caller) -> list[str]:
        """The prefixes of a caller; one with a placeholder is nobody's who has no key."""
        named = [each for each in self.prefixes if caller.key_id or not (NAME in each or KEY_ID in each)]
        return [normal(each.replace(NAME, caller.name).replace(KEY_ID, caller.key_id)) for each in named]

    def _kept(self) -> list[str]:
        return [normal(each) for each in self.reserved if not each.startswith("memory://")]


def normal(address: str) -> str:
    """The one spelling of an s3:// address or an absolute path, with links on this machine's disk followed.

    Raises ValueError with what is wrong, for every other scheme and for all that may mean another place to somebody
    else: steps upwards, empty steps, and either of them percent-encoded.
    """
    if _NEVER.search(address):
        raise ValueError("an address has no control characters and no backslashes")
    if address.startswith("s3://"):
        bucket, _, key = address.removeprefix("s3://").rstrip("/").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("write s3://bucket/folder, with a valid name of a bucket")
        _check_steps(key)
        return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"
    path = unquote(address.removeprefix("file://")) if address.startswith("file:///") else address
    if not path.startswith("/"):
        raise ValueError("use an s3:// address or an absolute path")
    _check_steps(path[1:].rstrip("/"))
    return os.path.realpath(path)


def _check_steps(path: str) -> None:
    text = path
    for _ in range(DECODINGS):
        steps = text.split("/") if text else []
        if {".", "..", ""} & set(steps) or _NEVER.search(text) or len(steps) != len(path.split("/") if path else []):
            raise ValueError("an address must not have the steps `.` or `..`, nor empty ones, encoded or not")
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded
    raise ValueError("this is percent-encoded too many times")


def _is_below(place: str, prefix: str) -> bool:
    return place == prefix or place.startswith(f"{prefix.rstrip('/')}/")
