"""Listing a large prefix of a bucket with several requests at a time, in order, and without keeping much of it.

A bucket is listed in order of key, a thousand keys at a time, but it can be asked for what comes after any string.
So what is left to list is cut into ranges `(after, until]`, and threads list those that the consumer needs first. Where
to cut is guessed from the latest page: some pages later, if the keys go on as in this one (`Rate`). A guess only says
which request brings a key: wherever a cut is, each key lies in exactly one range.

Python compares strings by code point, which is the order of their UTF-8 bytes, which is the order of S3.
"""

import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from infra.errors import StoreError
from infra.store.protocol import Stored

PAGE = 1000  # the most that S3 gives at a time
THREADS = 8
READY = 64  # pages kept for a consumer that is slower than the bucket
NEARBY = 4  # and of each of the first ranges, whatever was listed further ahead
LONG = 8  # pages: what a range should have, more or less
AROUND = 3  # characters on both sides of the first in which the keys of a page differ
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
        yield from _Listing(ask, root, found, token).rest()


@dataclass(eq=False)
class _Range:
    """Keys to be listed: `after` moves as they are, `until` when the end is cut off."""

    after: str
    until: str | None
    seen: str  # a key near its beginning
    rate: "Rate"  # of the latest page before or in it
    token: str | None = None
    pages: deque[list[Stored]] = field(default_factory=deque)
    listed: int = 0  # pages
    uncut: int = LONG  # pages listed since it was cut: with so many it is longer than was guessed
    busy: bool = False  # a thread is asking for its next page
    looked_at: bool = False  # a thread looks for a place to cut it
    done: bool = False
    error: BaseException | None = None


class _Stopped(Exception):
    pass


class _Listing:
    """The ranges, in order. All that changes does so under `changed`."""

    def __init__(self, ask: Ask, root: str, found: list[Stored], token: str) -> None:
        self.ask, self.root, self.ready, self.ahead = ask, root, 0, LONG
        last = found[-1].uri if found else root
        self.ranges = [_Range(last, None, last, Rate.of(found, len(root)), token)]
        self.changed = threading.Condition()
        self.stopped = threading.Event()

    def rest(self) -> Iterator[Stored]:
        threads = [threading.Thread(target=self._work, name="listing", daemon=True) for _ in range(THREADS)]
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

    def _work(self) -> None:
        while job := self._next_job():
            work, own = job
            try:
                work(own)
            except _Stopped:
                return
            except BaseException as error:  # it is the consumer's, when he comes to this range
                with self.changed:
                    own.error, own.done = error, True
                    self.changed.notify_all()

    def _next_job(self) -> tuple[Callable[[_Range], None], _Range] | None:
        """What serves the consumer soonest; waits for something to do. None when there will be nothing any more."""
        with self.changed:
            while not self.stopped.is_set():
                if all(each.done for each in self.ranges):
                    return None
                for index, each in enumerate(self.ranges):
                    near, room = index < THREADS, self.ready < READY
                    if not (each.busy or each.done) and (room or (near and len(each.pages) < NEARBY)):
                        each.busy = True
                        return self._list, each
                    if not (each.looked_at or each.done) and (room or near) and each.uncut >= LONG:
                        each.looked_at, each.uncut = True, 0
                        return self._cut, each
                self.changed.wait()
            return None

    def _list(self, own: _Range) -> None:
        found, token = self.ask(own.after, own.token, PAGE, self._pause)
        with self.changed:
            page = [each for each in found if own.until is None or each.uri <= own.until]
            own.busy, own.token, own.uncut, own.listed = False, token, own.uncut + 1, own.listed + 1
            own.done = own.done or token is None or len(page) < len(found)
            if own.done and own.until is not None:  # learn from guesses
                self.ahead = min(self.ahead * 2, 64 * LONG) if own.listed < LONG // 2 else self.ahead
                self.ahead = max(self.ahead // 2, 1) if own.listed > 2 * LONG else self.ahead
            if page:
                own.after = own.seen = page[-1].uri
                own.rate = Rate.of(page, len(self.root))
                own.pages.append(page)
                self.ready += 1
            self.changed.notify_all()

    def _cut(self, own: _Range) -> None:
        """Make what lies some pages behind the latest one a range of its own, if there is anything."""
        found = None
        for place in (own.rate.later(own.seen, pages) for pages in (self.ahead, max(1, self.ahead // 4))):
            if found := self._first(place, own):
                break
        with self.changed:
            own.looked_at = False
            if found is None:
                own.uncut += LONG - 2  # the end is near: look again soon
            elif not own.done and place > own.after:
                rest = _Range(place, own.until, found, own.rate)
                own.until = place
                self.ranges.insert(self.ranges.index(own) + 1, rest)
            self.changed.notify_all()

    def _first(self, place: str, own: _Range) -> str | None:
        """The first key behind a place to cut a range; None if there is none, or it cannot be asked for."""
        outside = place <= own.after or (own.until is not None and place >= own.until)
        if outside or not place.startswith(self.root) or len(place.encode()) > LONGEST or NOT_IN_XML.search(place):
            return None
        try:
            found, _ = self.ask(place, None, 1, self._pause)
        except StoreError:  # whoever lists what is there meets the same
            return None
        return found[0].uri if found and (own.until is None or found[0].uri <= own.until) else None

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise _Stopped


@dataclass(frozen=True)
class Rate:
    """How fast the keys of a page go on, to guess what comes some pages later.

    Around the first character in which they differ, keys are taken for numbers. Their digits are the letters seen
    there, in order; of scripts with too many letters to have seen them all, the code points.
    """

    start: int
    stop: int
    letters: str
    step: int = 0  # a page, as the difference of two such numbers

    @classmethod
    def of(cls, page: list[Stored], root: int) -> "Rate":
        """The slower half of the page counts: in the other, a nine may have become a one with zeros."""
        if not page:
            return cls(root, root, "")
        first, middle, last = (page[index].uri for index in (0, len(page) // 2, -1))
        differ = _common(first, last)
        start, stop = max(root, differ - AROUND), differ + AROUND
        letters = "".join(sorted(set[str]().union(*(each.uri[start:stop] for each in page))))
        rate = cls(start, stop, letters if letters.isascii() else "")
        half = min(rate._number(middle) - rate._number(first), rate._number(last) - rate._number(middle))
        return replace(rate, step=2 * half)

    def later(self, key: str, pages: int) -> str:
        """What comes so many pages behind a key; at most what comes behind all that begin like it."""
        value, text = self._number(key) + pages * self.step, ""
        for place in range(self.stop - self.start):
            digit = value // self._base**place % self._base if value < self._base ** (self.stop - self.start) else -1
            text = self._letter(digit) + text
        return key[: self.start] + text.partition("\0")[0]

    @property
    def _base(self) -> int:
        return len(self.letters) + 1 if self.letters else 0x110000

    def _number(self, key: str) -> int:
        value = 0
        for letter in key[self.start : self.stop].ljust(self.stop - self.start, "\0"):
            known = bisect_right(self.letters, letter) if self.letters else ord(letter)
            value = value * self._base + known
        return value

    def _letter(self, digit: int) -> str:
        """0 stands behind the end of a key, -1 for the highest digit."""
        if self.letters:
            return ("\0" + self.letters)[digit]
        code = digit % 0x110000
        return chr(code) if not 0xD800 <= code <= 0xDFFF else "\ue000"


def _common(one: str, other: str) -> int:
    """How many characters two strings begin with together."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
