"""Room for decoded images: never more than there is, first come first served, given back whatever happens."""

import asyncio

import pytest

from serving.app.room import Room


def test_never_more_than_there_is_and_in_order():
    room, seen, order = Room(10), [], []

    async def one(number: int, pixels: int) -> None:
        async with room.taken(pixels):
            order.append(number)
            seen.append(room.free)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number, pixels) for number, pixels in enumerate((6, 6, 1, 100, 3))))

    asyncio.run(all_of_them())
    assert min(seen) >= 0 and order == [0, 1, 2, 3, 4] and room.free == 10


def test_room_comes_back_from_who_fails_or_goes_away():
    async def scenario() -> None:
        room = Room(10)
        with pytest.raises(ValueError):
            async with room.taken(10):
                raise ValueError
        async with room.taken(10):
            waiting = asyncio.create_task(room.taken(1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5), room.taken(10):
            assert room.free == 0

    asyncio.run(scenario())
