"""How much one key may ask for: so many requests per minute, so many at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.errors import TooMany

MINUTE = 60.0
SLOT_SECONDS = 1.0  # until it is worth asking again for a place among so many at a time


class Limits:
    """A bucket of tokens, refilled evenly, that holds a minute's worth; and a count of requests under way."""

    def __init__(self, name: str, rate: int | None, concurrency: int | None, clock: Callable[[], float]) -> None:
        """`rate` in requests per minute; `clock` in seconds."""
        self._name, self._rate, self._concurrency, self._clock = name, rate, concurrency, clock
        self._tokens, self._filled, self._under_way = float(rate or 0), clock(), 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One request, while the block lasts. Raises TooMany; a request that is refused counts for nothing."""
        if self._concurrency is not None and self._under_way >= self._concurrency:
            at_a_time = f"{self._concurrency} {'request' if self._concurrency == 1 else 'requests'} at a time"
            raise TooMany(f"The key {self._name} may have {at_a_time}; wait for one to be answered.", SLOT_SECONDS)
        self._take()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _take(self) -> None:
        if self._rate is None:
            return
        now, per_second = self._clock(), self._rate / MINUTE
        self._tokens = min(self._rate, self._tokens + max(0.0, now - self._filled) * per_second)
        self._filled = now
        if self._tokens < 1:
            a_minute = f"{self._rate} {'request' if self._rate == 1 else 'requests'} a minute"
            raise TooMany(f"The key {self._name} may send {a_minute}.", (1 - self._tokens) / per_second)
        self._tokens -= 1
