"""Who is next: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), level below level.

Whoever has had the least so far is served next. Somebody who comes after a pause starts where the others are, so that
nobody saves up a claim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items that wait, each under a path of names such as (tenant, adapter), with what it will cost.

    Fair between the first names of the paths, and below each of them between the second, and so on; first come, first
    served among items of one path. All paths are of one length.
    """

    def __init__(self) -> None:
        self._below: dict[Hashable, FairQueue[Item]] = {}
        self._here: deque[tuple[Item, float]] = deque()
        self._had: dict[Hashable, float] = {}  # by everybody who waits, or is ahead of those who do
        self._now = 0.0  # what whoever was served last had had before

    def __len__(self) -> int:
        return len(self._here) + sum(len(queue) for queue in self._below.values())

    def put(self, item: Item, path: Sequence[Hashable], cost: float) -> None:
        """Let an item wait."""
        if not path:
            self._here.append((item, cost))
            return
        name = path[0]
        if name not in self._below:
            self._below[name] = FairQueue()
            self._had[name] = max(self._had.get(name, 0.0), self._now)
        self._below[name].put(item, path[1:], cost)

    def pop(self) -> Item:
        """The item whose turn it is. Raises IndexError if none waits."""
        return self._pop()[0]

    def _pop(self) -> tuple[Item, float]:
        if not self._below:
            return self._here.popleft()
        name = min(self._below, key=self._had.__getitem__)
        item, cost = self._below[name]._pop()
        self._now = self._had[name]
        self._had[name] += cost
        self._tidy()
        return item, cost

    def discard(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out those that nobody wants any more, and return them."""
        gone = [item for item, _ in self._here if unwanted(item)]
        self._here = deque(each for each in self._here if each[0] not in gone) if gone else self._here
        gone += [item for queue in self._below.values() for item in queue.discard(unwanted)]
        self._tidy()
        return gone

    def _tidy(self) -> None:
        """There may be any number of names in the course of time: forget those whom nothing is known against."""
        self._below = {name: queue for name, queue in self._below.items() if len(queue)}
        if not self._below:  # nobody is kept waiting, so nobody owes anything
            self._now = max(self._had.values(), default=self._now)
        self._had = {name: had for name, had in self._had.items() if name in self._below or had > self._now}
