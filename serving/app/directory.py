"""Which version a ref means now: the registry, looked at about once a second however many ask.

Where the registry does not answer, a ref goes on meaning what it meant, and `trouble` says so.
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
THREADS = 4


@dataclass(frozen=True)
class _Known:
    version: Version
    at: float


class Directory:
    """The registry as one process sees it. `trouble` is a sentence while it does not answer, else None."""

    def __init__(
        self, address: str, revision: str, fresh: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`revision` of the base that adapters must be for, or for its twin; `fresh`: seconds an alias may lag."""
        self.address = address
        self.trouble: str | None = None
        self._revision, self._fresh, self._clock = revision, fresh, clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looks: dict[str, asyncio.Task[Version]] = {}
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
        self.trouble = None
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
        if known and (now - known.at <= self._freshness(ref) or now < self._not_before):
            return known.version
        look = self._looks.get(ref)
        if look is None:
            look = self._looks[ref] = asyncio.create_task(self._look(ref))
            look.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        await asyncio.wait({look}, timeout=PATIENCE if known else None)
        if known and (not look.done() or isinstance(look.exception(), StoreUnavailable)):
            return known.version
        return look.result()

    async def _look(self, ref: str) -> Version:
        began = self._clock()
        try:
            version = await self._in_thread(lambda: self._answered(lambda: self._fitting(ref)))
        except StoreUnavailable as error:
            self._note(error)
            raise
        except Exception:
            self._known.pop(ref, None)  # deleted, damaged, or not for this base
            raise
        finally:
            del self._looks[ref]
        self.trouble = None
        self._known[ref] = _Known(version, began)
        self._known.move_to_end(ref)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return version

    def _fitting(self, ref: str) -> Version:
        version = registry.resolve(self.address, ref)
        adapters.check_fit(self.address, version, self._revision)
        return version

    def _answered(self, question: Callable[[], T]) -> T:
        """An answer of a registry that is there: the folder of a disk that is not mounted only looks empty."""
        there = self._is_there()
        if self._was_there and not there:
            raise StoreUnavailable("The registry is not where it was.")
        self._was_there = self._was_there or there
        return question()

    def _is_there(self) -> bool:
        return store.scheme_of(self.address) != "file" or Path(store.local_path(self.address)).is_dir()

    def _note(self, error: BaseException) -> None:
        log.warning("The registry does not answer: %s", error)
        self.trouble = "The registry does not answer; adapters that were used before go on being served."
        self._not_before = self._clock() + PAUSE

    def _freshness(self, ref: str) -> float:
        return FIXED_FRESH if layout.parsed(ref)[1] is not None else self._fresh

    async def _in_thread(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)


def _probe(address: str) -> None:
    store.stat(store.join(address, "probe"))
