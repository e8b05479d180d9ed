"""Which URLs webhooks may go to: those below an allow-list, so that nobody can send this server anywhere else."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from infra.errors import RequestError, UsageError

OPTION = "--webhook"  # of `edit-transfer serve`

# Deliberately narrow: what two parsers could read in two ways is not a URL here.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Targets:
    """`allowed` are origins, or origins with a path; https unless one says http. Raises UsageError for bad ones."""

    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in self.allowed:
            try:
                _read(each)
            except ValueError as error:
                raise UsageError(f"{OPTION} {each}: {error}.") from None

    def checked(self, url: str) -> str:
        """The URL, as it is. Raises RequestError if nothing may be sent there."""
        if not self.allowed:
            raise RequestError(
                f"This endpoint sends no webhooks: start it with {OPTION} to say where they may go.", "webhook"
            )
        try:
            origin, path = _read(url)
        except ValueError as error:
            raise RequestError(f"webhook: {error}.", "webhook") from None
        for allowed_origin, below in map(_read, self.allowed):
            if origin == allowed_origin and f"{path}/".startswith(f"{below.rstrip('/')}/"):
                return url
        raise RequestError(
            "webhook: this endpoint may not send anything there; ask its operator to allow it.", "webhook"
        )


def without_query(url: str) -> str:
    """What may be noted of a URL: its query may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _read(url: str) -> tuple[tuple[str, str, int], str]:
    """Origin and path. Raises ValueError with what is wrong."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("write a plain URL, https://host/path, with the host in small letters")
    scheme, path = match["scheme"], match["path"] or "/"
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError("there is no such port")
    if {".", ".."} & set(unquote(unquote(path)).split("/")) or "//" in path or re.search("%2f|%5c|%25", path, re.I):
        raise ValueError("its path must not have the steps `.` or `..`, nor empty ones, encoded or not")
    return (scheme, match["host"], port), path
