"""Leases: one holder at a time, who renews while it works. A log as well; its latest entry says who and until when.

The clocks of machines that compete may differ by less than a third of a lease. On one machine no clock is asked that
can be set: terms are told apart by the time since it was started.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra import store
from infra.errors import AdapterDamaged, LeaseHeld, StoreError
from infra.registry import document, layout, log

Clock = Callable[[], datetime]

_PROCESS = secrets.token_hex(8)  # a number is given to another process when its owner is gone, this is not


class Lease:
    """A lease that is held. `lost` is set once somebody else has it, or it ran out and could not be renewed."""

    def __init__(
        self, uri: str, number: int, entry: dict[str, Any], seconds: float, clock: Clock, traceless: bool = False
    ) -> None:
        self.uri, self.seconds, self.clock, self.traceless = uri, seconds, clock, traceless
        self.lost = threading.Event()
        self._number, self._entry = number, entry
        self._writing = threading.Lock()
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"lease {uri}", daemon=True)
        self._keeper.start()

    def renew(self) -> bool:
        """Hold it for another term; False, and `lost`, if it is not ours any more."""
        with self._writing:
            try:
                if not self._append(_terms(self.clock(), self.seconds, self._entry)):
                    self.lost.set()
            except StoreError:  # the store may come back before the term is over
                if self.clock() >= _time(self._entry["until"]) or time.monotonic() >= self._entry["uptime"]:
                    self.lost.set()
            return not self.lost.is_set()

    def holds(self) -> bool:
        """Whether it is ours as far as is known; who was stopped past the end of the term asks before it answers."""
        if time.monotonic() >= self._entry["uptime"]:
            self.renew()
        return not self.lost.is_set()

    def release(self) -> None:
        """Let it go; a store that does not answer lets it run out."""
        self._released.set()
        self._keeper.join()
        if not self.lost.is_set():
            with suppress(StoreError):
                if self.traceless:
                    store.delete(log.entry_uri(self.uri, self._number))
                else:
                    self._append({"until": _text(self.clock()), "released": True})

    def _keep(self) -> None:
        while not self._released.wait(self.seconds / 3) and self.renew():
            pass

    def _append(self, changes: dict[str, Any]) -> bool:
        entry = self._entry | changes
        if not _appended(self.uri, self._number + 1, entry):
            return False
        store.delete(log.entry_uri(self.uri, self._number))  # superseded: only the latest counts
        self._number, self._entry = self._number + 1, entry
        return True


@contextmanager
def lease(
    registry: str,
    name: str,
    purpose: str,
    seconds: float = 60,
    clock: Clock = document.now,
    what: str | None = None,
    traceless: bool = False,
) -> Iterator[Lease]:
    """Be the only one at some work on an adapter, renewed in the background while the block lasts.

    A holder that ended without letting go is followed at once on its machine, elsewhere when its term is over.

    what       what others are told to be held; the name and the purpose if left out
    traceless  whether nothing stays behind once it is let go

    Raises LeaseHeld if another holds it, and StoreError.
    """
    uri = layout.lease_uri(registry, name, purpose)
    number, entry = _acquired(uri, what or f"{name}: {purpose}", seconds, clock)
    held = Lease(uri, number, entry, seconds, clock, traceless)
    try:
        yield held
    finally:
        held.release()


def _is_over(entry: dict[str, Any], now: datetime) -> bool:
    """Whether nobody holds what this entry, the latest of its log, gave away. Raises AdapterDamaged."""
    until = ended(entry)
    if entry.get("released"):
        return True
    if entry.get("machine") != _machine() or "uptime" not in entry:
        return until <= now or _is_dead(entry)
    left = entry["uptime"] - time.monotonic()  # more than a term: the machine was started anew
    return not 0 < left <= entry["seconds"] or _is_dead(entry)


def ended(entry: dict[str, Any]) -> datetime:
    """When the term of an entry is over. Raises AdapterDamaged."""
    return _time(entry.get("until"))


def _acquired(uri: str, what: str, seconds: float, clock: Clock) -> tuple[int, dict[str, Any]]:
    while True:
        seen = log.numbers(uri)
        latest = log.latest(uri)
        if latest and not _is_over(latest[1], clock()):
            raise LeaseHeld(_held(what, latest[1]))
        number, entry = (latest[0] if latest else 0) + 1, _entry(clock(), seconds)
        if _appended(uri, number, entry, {number, *seen}):
            if latest:
                store.delete(log.entry_uri(uri, latest[0]))
            return number, entry


def _appended(uri: str, number: int, entry: dict[str, Any], known: Container[int] | None = None) -> bool:
    """Whether the entry rules. A number may be free because it was superseded and removed: that wins nothing.

    Nor does it beside an unknown number, where one who left no trace was followed by somebody who counts anew.
    """
    if not log.append(uri, number, entry):
        return False
    there = log.numbers(uri)
    if there[-1] == number and (known is None or all(each in known for each in there)):
        return True
    store.delete(log.entry_uri(uri, number))
    return False


def _entry(now: datetime, seconds: float) -> dict[str, Any]:
    return {
        "holder": document.me(),
        "machine": _machine(),
        "pid": os.getpid(),
        "process": _PROCESS,
        "since": _text(now),
        **_terms(now, seconds),
    }


def _terms(now: datetime, seconds: float, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Until when, in UTC and since the machine was started: never less than a term after `before`, wherever its clock
    was set meanwhile."""
    uptime, until = time.monotonic() + seconds, now + timedelta(seconds=seconds)
    if before:
        until = max(until, _time(before["until"]) + timedelta(seconds=uptime - before["uptime"]))
    return {"until": _text(until), "uptime": uptime, "seconds": seconds}


def _is_dead(entry: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that has ended."""
    if entry.get("machine") != _machine():
        return False
    if entry["pid"] == os.getpid():
        return entry["process"] != _PROCESS
    try:
        os.kill(entry["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


@lru_cache(maxsize=1)
def _machine() -> str:
    """Where process numbers mean the same: containers may share a host name, and even a kernel."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(parts)


def _held(what: str, entry: dict[str, Any]) -> str:
    who = f"{entry.get('holder')} (process {entry.get('pid')})"
    since, until = (f"{_time(entry.get(key)):%Y-%m-%d %H:%M:%S}" for key in ("since", "until"))
    return f"{what} is held by {who} since {since}, until {until} UTC unless it is renewed; wait, or stop that process."


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise AdapterDamaged(
            f"A lease says {text!r} where a time was written; delete that file below leases/."
        ) from None
