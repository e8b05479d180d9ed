"""The gate that every request passes: whose it is, whether it may, and whether it is not too much.

The store is listed at most once in a second, and not at all while nobody asks: unknown keys are told from known ones
without another look, however many are tried. What is known of a key is its record, which never changes, and whether
the listing shows a tombstone, so a revoked key is refused within seconds. Where the store does not answer, the keys
that were known go on for some minutes, and nobody else gets in.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from infra.errors import Forbidden, StoreError, StoreUnavailable, Unauthorized, UsageError
from serving.access import keys
from serving.access.keys import SCOPES, Directory, Key
from serving.access.limits import Limits

# Seconds.
FRESH = 3.0  # a listing counts as what is there
FRESH_FOR_UNKNOWN = 1.0  # for a key that it does not show
TRUSTED = 300.0  # and where the store does not answer, for the keys that it shows
PATIENCE = 2.0  # a request waits for the store
PAUSE = 1.0  # after a look that failed, before the next

NOBODY = keys.hashed("")  # compared with where there is no record: as much work as where there is one
HOW = "send the header `Authorization: Bearer et_…`; `edit-transfer keys create` makes a key"

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose request it is. `key_id` and `name` are empty where no keys are asked for."""

    key_id: str
    name: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; `admin` has all."""
        return scope in self.scopes or self.is_admin


ANONYMOUS = Caller(key_id="", name="", scopes=frozenset(SCOPES))


@dataclass(frozen=True)
class _Look:
    """What a listing showed; `at` is when it began, on the gate's clock."""

    shown: Directory
    at: float


class Gate:
    """The keys of one address, as one process sees them; limits are counted in this process alone."""

    def __init__(self, address: str, *, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE):
        """`address` as in `Settings.serving`; `clock` in seconds, `patience` how many a request waits for the store."""
        self._address, self._clock, self._patience = address, clock, patience
        self._look: _Look | None = None
        self._looking: asyncio.Task[None] | None = None
        self._next_look = clock()
        self._began = clock()
        self._closed = False  # a key was seen: from then on never open again
        self._records: dict[str, tuple[str, Key]] = {}
        self._reading: dict[str, asyncio.Task[Key | None]] = {}
        self._limits: dict[str, Limits] = {}
        self._threads = ThreadPoolExecutor(4, "keys")

    async def required(self) -> bool:
        """Whether requests need a key: as soon as one was ever created. Raises StoreUnavailable if nobody knows."""
        if not self._closed:
            look = await self._looked(FRESH)
            if not self._is_younger(look, FRESH):
                raise self._unavailable()
        return self._closed

    @asynccontextmanager
    async def enter(self, authorization: str | None, scope: str | None = None) -> AsyncIterator[Caller]:
        """One request, with its `Authorization` header: who asks. None as `scope` is for every valid key.

        Raises:
            Unauthorized: no key, or none that is valid.
            Forbidden: the key does not have the scope.
            TooMany: over the key's limits; `retry_after` says when to come back.
            StoreUnavailable: the store with the keys does not answer, and this key was not seen before.
        """
        if not await self.required():
            yield ANONYMOUS
            return
        key = await self._identified(authorization)
        caller = Caller(key_id=key.key_id, name=key.name, scopes=frozenset(key.scopes))
        if scope and not caller.may(scope):
            raise Forbidden(f"The key {key.name} does not have the scope {scope}, only {', '.join(key.scopes)}.")
        with self._limits_of(key).slot():
            yield caller

    async def key(self, key_id: str) -> Key | None:
        """What is stored of a key that is valid, None of any other. Raises StoreUnavailable if nobody knows."""
        look = await self._looked(FRESH)
        if not self._is_younger(look, FRESH) and (look is None or key_id not in look.shown.etags):
            raise self._unavailable()
        return await self._valid(key_id, look)

    async def _identified(self, authorization: str | None) -> Key:
        key_id, secret = _credentials(authorization)
        look = await self._looked(FRESH)
        if look and key_id not in look.shown.etags:
            look = await self._looked(FRESH_FOR_UNKNOWN)
        key = await self._record(key_id, look)
        right = hmac.compare_digest(keys.hashed(secret), key.secret_sha256 if key else NOBODY)
        if key is None and not self._is_younger(look, FRESH):
            raise self._unavailable()
        if key is None or not right:
            raise Unauthorized(f"This key is not known here: {HOW}.")
        if await self._valid(key_id, look) is None:
            raise Unauthorized(f"The key {key.name} was revoked: {HOW}.")
        return key

    async def _valid(self, key_id: str, look: _Look | None) -> Key | None:
        revoked = look is None or key_id in look.shown.revoked
        return None if revoked else await self._record(key_id, look)

    async def _looked(self, age: float) -> _Look | None:
        """The latest listing, made anew if it is older than `age` seconds; an old one where the store is silent.

        None if there is none that may be trusted still.
        """
        if not self._is_younger(self._look, age):
            now = self._clock()
            if self._looking is None and now >= self._next_look:
                self._began = now
                self._looking = asyncio.create_task(self._look_now(now))
            if self._looking is not None:  # whoever comes while it takes long does not wait from the beginning
                await asyncio.wait({self._looking}, timeout=max(0.0, self._patience - (now - self._began)))
        return self._look if self._is_younger(self._look, max(age, TRUSTED)) else None

    async def _look_now(self, began: float) -> None:
        try:
            shown = await self._in_thread(lambda: keys.directory(self._address))
            self._look = _Look(shown, began)
            self._closed = self._closed or bool(shown)
        except StoreError as error:
            log.warning("The keys cannot be looked up: %s", error)
            self._next_look = self._clock() + PAUSE
        finally:
            self._looking = None

    async def _record(self, key_id: str, look: _Look | None) -> Key | None:
        """The record of a key that a listing shows, read once; None of any other, and of a damaged one."""
        etag = look.shown.etags.get(key_id) if look else None
        if etag is None:
            return None
        known = self._records.get(key_id)
        if known and known[0] == etag:
            return known[1]
        reading = self._reading.get(key_id)
        if reading is None:
            reading = self._reading[key_id] = asyncio.create_task(self._read(key_id, etag))
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        await asyncio.wait({reading}, timeout=self._patience)
        if not reading.done():
            raise self._unavailable()
        return reading.result()

    async def _read(self, key_id: str, etag: str) -> Key | None:
        try:
            key = await self._in_thread(lambda: keys.read(self._address, key_id))
            self._records[key_id] = (etag, key)
            return key
        except StoreError:
            raise self._unavailable() from None
        except UsageError as error:
            log.warning("A key is refused: %s", error)
            return None
        finally:
            del self._reading[key_id]

    async def _in_thread(self, look: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, look)

    def _is_younger(self, look: _Look | None, age: float) -> bool:
        return look is not None and self._clock() - look.at <= age

    def _limits_of(self, key: Key) -> Limits:
        if key.key_id not in self._limits:
            self._limits[key.key_id] = Limits(key.name, key.rate, key.concurrency, self._clock)
        return self._limits[key.key_id]

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable("Keys cannot be checked at the moment, for their store does not answer; try again.")


def _credentials(authorization: str | None) -> tuple[str, str]:
    if not authorization:
        raise Unauthorized(f"A key is needed here: {HOW}.")
    kind, _, token = authorization.strip().partition(" ")
    parsed = keys.parsed(token.strip()) if kind.lower() == "bearer" else None
    if parsed is None:
        raise Unauthorized(f"This is no key: {HOW}.")
    return parsed
