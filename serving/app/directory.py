"""Which version a ref means now: never what it meant before it was asked for.

Whoever asks waits for a look at the registry that begins after that, and shares it with all who came in the meantime.
Mostly it is one listing, which shows that an alias has not moved. Where the registry does not answer, a ref goes on
meaning what it meant, and `trouble` says so.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from infra import registry, store
from infra.errors import StoreError, StoreUnavailable
from infra.registry import Version, layout
from pipelines import adapters
from pipelines.adapters import Worn

log = logging.getLogger(__name__)
T = TypeVar("T")

KEPT = 4096  # refs
FIXED_FRESH = 60.0  # seconds; `name@3` can only disappear
LIST_FRESH = 5.0  # seconds
PATIENCE = 2.0  # seconds a request waits for a registry that is slow, if it can do without
PAUSE = 1.0  # seconds after a look that failed, before the next
THREADS = 8


@dataclass(frozen=True)
class _Known:
    """What a ref means. `mark` was taken before `version` was read, and that at `at`."""

    version: Version
    mark: tuple[int, ...]
    at: float


class Directory:
    """The registry as one process sees it. `trouble` is a sentence while it does not answer, else None."""

    def __init__(
        self, address: str, revision: str, fresh: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`revision` of the base that adapters must be for, or for its twin; `fresh`: seconds for which an alias that
        has not moved needs no other look than that."""
        self.address = address
        self.trouble: str | None = None
        self._revision, self._fresh, self._clock = revision, fresh, clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Version]] = {}
        self._next: dict[str, asyncio.Task[Version]] = {}  # looks that have not begun
        self._not_before = clock()
        self._threads = ThreadPoolExecutor(THREADS, "registry")
        self._listing = asyncio.Lock()
        self._listings: dict[Callable[[str], Any], tuple[float, Any]] = {}
        self._was_there = self._is_there()

    async def find(self, ref: str, scale: float = 1.0) -> Worn:
        """The adapter that a ref means, `name@alias:scale` included.

        Raises UsageError, AdapterNotFound, AdapterDamaged, and StoreUnavailable for a ref that was not seen before.
        """
        name, strength = adapters.strength_of(ref, scale)
        return Worn(await self._version(name), strength)

    async def look(self, question: Callable[..., T], *arguments: object) -> T:
        """Ask the registry something else, `question(address, ...)`, off the event loop."""
        answer = await self._in_thread(lambda: self._answered(lambda: question(self.address, *arguments)))
        self._heard()
        return answer

    async def listed(self, question: Callable[[str], T]) -> T:
        """The answer to a question that reads much of the registry: asked by one at a time, good for some seconds."""
        async with self._listing:
            began = self._clock()
            if began - self._listings.get(question, (-math.inf, None))[0] > LIST_FRESH:
                try:
                    self._listings[question] = began, await self.look(question)
                except StoreUnavailable as error:
                    self._note(error)
                    if question not in self._listings:
                        raise
            return cast(T, self._listings[question][1])

    async def check(self) -> None:
        """Look whether the registry answers; what comes of it is in `trouble`."""
        try:
            await asyncio.wait_for(self.look(_probe), PATIENCE)
        except (StoreError, TimeoutError) as error:
            self._note(error)

    async def _version(self, ref: str) -> Version:
        known, now = self._known.get(ref), self._clock()
        if known and (now < self._not_before or (_is_fixed(ref) and now - known.at <= FIXED_FRESH)):
            return known.version
        look = self._next.get(ref)
        if look is None:
            look = self._next[ref] = asyncio.create_task(self._look(ref, self._looking.get(ref)))
            look.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        await asyncio.wait({look}, timeout=PATIENCE if known else None)
        if known and not look.done():
            self._note(TimeoutError(f"no answer in {PATIENCE:g} seconds"))
        if known and (not look.done() or isinstance(look.exception(), StoreUnavailable)):
            return known.version
        return look.result()

    async def _look(self, ref: str, before: asyncio.Task[Version] | None) -> Version:
        """What a ref means, looked up once the look before is over: until then others may join this one."""
        if before:
            await asyncio.wait({before})
        self._looking[ref] = self._next.pop(ref)
        known, began = self._known.get(ref), self._clock()
        try:
            found = await self._in_thread(lambda: self._answered(lambda: self._found(ref, known, began)))
        except StoreUnavailable as error:
            self._note(error)
            raise
        except Exception:
            self._known.pop(ref, None)  # deleted, damaged, or not for this base
            raise
        finally:
            del self._looking[ref]
        self._heard()
        self._known[ref] = found
        self._known.move_to_end(ref)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return found.version

    def _found(self, ref: str, known: _Known | None, now: float) -> _Known:
        mark = registry.mark(self.address, ref)
        if known and known.mark == mark and now - known.at <= self._fresh:
            return known
        version = registry.resolve(self.address, ref)
        adapters.check_fit(self.address, version, self._revision)
        return _Known(version, mark, now)

    def _answered(self, question: Callable[[], T]) -> T:
        """An answer of a registry that is there: the folder of a disk that is not mounted only looks empty."""
        there = self._is_there()
        if self._was_there and not there:
            raise StoreUnavailable("The registry is not where it was.")
        self._was_there = self._was_there or there
        return question()

    def _is_there(self) -> bool:
        return store.scheme_of(self.address) != "file" or Path(store.local_path(self.address)).is_dir()

    def _heard(self) -> None:
        self.trouble, self._not_before = None, self._clock()

    def _note(self, error: BaseException) -> None:
        log.warning("The registry does not answer: %s", error)
        self.trouble = "The registry does not answer; adapters that were used before go on being served."
        self._not_before = self._clock() + PAUSE

    async def _in_thread(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)


def _is_fixed(ref: str) -> bool:
    return layout.parsed(ref)[1] is not None


def _probe(address: str) -> None:
    store.stat(store.join(address, "probe"))
