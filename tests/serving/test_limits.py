"""What a key may do at a time, and in a minute."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from infra.errors import TooMany
from serving.access import Gate, keys
from tests.serving.doors import bearer, entered


def test_a_rate_is_a_minutes_worth_and_fills_up_again(local, clock):
    _, token = keys.create(local, "shop", ["transfer"], rate=6)
    _, other = keys.create(local, "other", ["transfer"], rate=6)

    async def asks() -> None:
        door = Gate(local, clock=clock)
        for _ in range(6):
            await entered(door, bearer(token))
        with pytest.raises(TooMany, match="6 requests a minute") as refused:
            await entered(door, bearer(token))
        assert refused.value.retry_after == pytest.approx(10)
        await entered(door, bearer(other))  # whose limit is its own
        clock.now += refused.value.retry_after + 1e-6
        await entered(door, bearer(token))
        with pytest.raises(TooMany):
            await entered(door, bearer(token))

    asyncio.run(asks())


def test_so_many_requests_at_a_time_and_a_failed_one_is_over(local):
    _, token = keys.create(local, "shop", ["transfer"], concurrency=2)

    async def asks() -> None:
        door = Gate(local)
        async with AsyncExitStack() as both:
            for _ in range(2):
                await both.enter_async_context(door.enter(bearer(token)))
            with pytest.raises(TooMany, match="2 requests at a time"):
                await entered(door, bearer(token))
        with pytest.raises(ZeroDivisionError):
            async with door.enter(bearer(token)):
                raise ZeroDivisionError
        inside = asyncio.Event()
        waiting = asyncio.create_task(stays(door, inside))
        await inside.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with door.enter(bearer(token)), door.enter(bearer(token)):
            pass

    async def stays(door: Gate, inside: asyncio.Event) -> None:
        async with door.enter(bearer(token)):
            inside.set()
            await asyncio.Event().wait()

    asyncio.run(asks())
