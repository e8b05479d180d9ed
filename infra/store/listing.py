"""Listing a large prefix of a bucket with several requests at a time, in order, and without keeping much of it.

A bucket is listed in order of key, a thousand keys at a time, but it can be asked for what comes after any string.
So what is left to list is cut into ranges `(after, until]`, each listed by a thread of its own. A thread without work
looks for the next place to cut (`_place`): behind the keys that go on like the latest one listed. Of `photo-000000.jpg`
to `photo-099999.jpg` that is behind `photo-00`, then behind `photo-01`, and so on. A cut only says who lists what:
wherever it is, each key lies in exactly one range.

Python compares strings by code point, which is the order of their UTF-8 bytes, which is the order of S3.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.errors import StoreError
from infra.store.protocol import Stored

PAGE = 1000  # the most that S3 gives at a time
THREADS = 8
READY = 32  # pages kept for a consumer that is slower than the bucket
LAST = "\U0010ffff"  # comes after every character
LONGEST = 1000  # bytes of a string after which a bucket is asked for more; keys have up to 1024
NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # Ceph repeats it as it is in its XML


class Ask(Protocol):
    """One request: up to `limit` objects after a URI, or where the token says, and the token of the rest if any."""

    def __call__(
        self, after: str, token: str | None, limit: int, pause: Callable[[float], Any]
    ) -> tuple[list[Stored], str | None]: ...


def listed(ask: Ask, root: str) -> Iterator[Stored]:
    """Every object whose URI begins with `root`, in order. The first page is one request; threads list the rest."""
    found, token = ask(root, None, PAGE, threading.Event().wait)
    yield from found
    if token is not None:
        yield from _Listing(ask, _Range(found[-1].uri if found else root, None, len(root), token)).rest()


@dataclass(eq=False)
class _Range:
    """What one thread lists: `after` moves as it goes, `until` when somebody takes the end over."""

    after: str
    until: str | None
    shared: int  # nothing left to list lies behind the keys that begin with the first `shared` characters of `after`
    token: str | None = None
    worth_cutting: bool = True  # nobody has looked at it since its latest page
    done: bool = False
    error: BaseException | None = None
    pages: deque[list[Stored]] = field(default_factory=deque)


class _Stopped(Exception):
    pass


class _Listing:
    """The ranges, in order. All that changes does so under `changed`."""

    def __init__(self, ask: Ask, rest: _Range) -> None:
        self.ask, self.ranges, self.ready = ask, [rest], 0
        self.changed = threading.Condition()
        self.stopped = threading.Event()

    def rest(self) -> Iterator[Stored]:
        first = self.ranges[0]
        threads = [threading.Thread(target=self._work, args=(first,), name="listing", daemon=True)]
        threads += [threading.Thread(target=self._work, name="listing", daemon=True) for _ in range(THREADS - 1)]
        for thread in threads:
            thread.start()
        try:
            while (page := self._next_page()) is not None:
                yield from page
        finally:
            self.stopped.set()
            with self.changed:
                self.changed.notify_all()
            for thread in threads:
                thread.join()

    def _next_page(self) -> list[Stored] | None:
        with self.changed:
            while self.ranges:
                first = self.ranges[0]
                while not (first.pages or first.done):
                    self.changed.wait()
                if first.pages:
                    self.ready -= 1
                    self.changed.notify_all()
                    return first.pages.popleft()
                if first.error:
                    raise first.error
                del self.ranges[0]
                self.changed.notify_all()
            return None

    def _work(self, own: _Range | None = None) -> None:
        try:
            while own := own or self._cut():
                self._list(own)
                own = None
        except (_Stopped, StoreError):  # whoever lists that range meets what keeps it from being cut
            pass

    def _list(self, own: _Range) -> None:
        try:
            while not own.done:
                self._wait_for(lambda: self.ready < READY or (own is self.ranges[0] and not own.pages))
                found, token = self.ask(own.after, own.token, PAGE, self._pause)
                with self.changed:
                    self._keep(own, found, token)
        except _Stopped:
            raise
        except BaseException as error:
            with self.changed:
                own.error, own.done = error, True
                self.changed.notify_all()

    def _keep(self, own: _Range, found: list[Stored], token: str | None) -> None:
        page = [each for each in found if own.until is None or each.uri <= own.until]
        own.done = token is None or len(page) < len(found)
        own.token, own.worth_cutting = token, True
        if page:
            own.after = page[-1].uri
            own.pages.append(page)
            self.ready += 1
        self.changed.notify_all()

    def _cut(self) -> _Range | None:
        """The end of the widest range, taken over from who was to list it; None when all is listed."""
        while True:
            with self.changed:
                self._wait_for(lambda: self._running() == [] or (self.ready < READY and self._worth_cutting()))
                if not self._running():
                    return None
                widest = min(self._worth_cutting(), key=lambda each: each.shared)
                widest.worth_cutting = False
                after, until = widest.after, widest.until
            place, shared = self._place(after, until, widest.shared)
            with self.changed:
                if place is None or widest.done or widest.until != until or place <= widest.after:
                    continue
                own = _Range(place, until, shared, worth_cutting=False)
                widest.until = place
                self.ranges.insert(self.ranges.index(widest) + 1, own)
                return own

    def _running(self) -> list[_Range]:
        return [each for each in self.ranges if not each.done]

    def _worth_cutting(self) -> list[_Range]:
        return [each for each in self._running() if each.worth_cutting]

    def _place(self, after: str, until: str | None, shared: int) -> tuple[str | None, int]:
        """Where to cut `(after, until]` so that much is left behind the cut, and what the keys there share.

        Behind the keys that have one more character in common with `after`, if there are more; else behind the
        widest such group that does not hold everything.
        """
        if self._behind(after[: shared + 1], until):
            return after[: shared + 1] + LAST, shared
        place, length = None, len(after)
        while length > shared + 1 and (found := self._behind(after[:length], until)):
            common = _common(after, found)
            place, length = after[: common + 1] + LAST, min(common, length - 1)
        return place, length

    def _behind(self, beginning: str, until: str | None) -> str | None:
        """The first key up to `until` that comes after all that begin like this, None if there is none."""
        bound = beginning + LAST
        if (until is not None and bound >= until) or len(bound.encode()) > LONGEST or NOT_IN_XML.search(bound):
            return None
        found, _ = self.ask(bound, None, 1, self._pause)
        return found[0].uri if found and (until is None or found[0].uri <= until) else None

    def _wait_for(self, true: Callable[[], Any]) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped.is_set() or true())
        if self.stopped.is_set():
            raise _Stopped

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise _Stopped


def _common(one: str, other: str) -> int:
    """How many characters two strings begin with together."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
