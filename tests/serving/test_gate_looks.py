"""What the gate knows of the store while keys come and go, and while it does not answer; the test turns the clock."""

import asyncio
import threading
from pathlib import Path

import pytest

from infra.errors import StoreUnavailable, Unauthorized
from serving.access import ANONYMOUS, Gate, gate, keys
from tests.serving.doors import bearer, entered

SEVERAL = 50


@pytest.fixture
def looks(monkeypatch) -> list[str]:
    """Every listing of keys; while `silent` is added to it, the store does not answer."""
    seen, listing = list[str](), keys.directory

    def counted(address: str) -> keys.Directory:
        seen.append(address)
        if "silent" in seen:
            raise StoreUnavailable(f"{address}: the S3 server does not answer.")
        return listing(address)

    monkeypatch.setattr(keys, "directory", counted)
    return seen


def test_revoking_bites_within_seconds(local, clock):
    key, token = keys.create(local, "shop", ["transfer"])

    async def asks() -> None:
        door = Gate(local, clock=clock)
        await entered(door, bearer(token))
        keys.revoke(local, key.key_id)
        clock.now += gate.FRESH + 0.1
        with pytest.raises(Unauthorized, match="revoked"):
            await entered(door, bearer(token))

    asyncio.run(asks())
    assert gate.FRESH <= 5


def test_the_first_key_closes_the_door_and_a_new_key_opens_it_soon(local, clock):
    async def asks() -> None:
        door = Gate(local, clock=clock)
        assert await entered(door, None) is ANONYMOUS
        _, token = keys.create(local, "shop", ["transfer"])
        clock.now += gate.FRESH_FOR_UNKNOWN + 0.1
        await entered(door, None)
        clock.now += gate.FRESH
        with pytest.raises(Unauthorized):
            await entered(door, None)
        _, second = keys.create(local, "shop", ["transfer"])
        clock.now += gate.FRESH_FOR_UNKNOWN + 0.1
        assert (await entered(door, bearer(token))).name == (await entered(door, bearer(second))).name == "shop"

    asyncio.run(asks())


def test_the_door_never_opens_again(local, clock):
    key, token = keys.create(local, "shop", ["transfer"])

    async def asks() -> None:
        door = Gate(local, clock=clock)
        await entered(door, bearer(token))
        Path(local, "keys", f"{key.key_id}.json").unlink()
        clock.now += gate.FRESH + 0.1
        for sent in (None, bearer(token)):
            with pytest.raises(Unauthorized):
                await entered(door, sent)
        assert await door.required()

    asyncio.run(asks())


def test_guessing_does_not_reach_the_store(local, clock, looks):
    _, token = keys.create(local, "shop", ["transfer"])

    async def asks() -> None:
        door = Gate(local, clock=clock)
        for number in range(200):
            with pytest.raises(Unauthorized):
                await entered(door, bearer(f"et_{number:016x}_{'A' * 43}"))
        assert len(looks) == 1
        clock.now += gate.FRESH + 0.1
        before = len(looks)
        await asyncio.gather(*(entered(door, bearer(token)) for _ in range(SEVERAL)))
        assert len(looks) == before + 1  # all of them wait for one look

    asyncio.run(asks())


def test_without_the_store_known_keys_go_on_for_a_while_and_nobody_else(local, clock, looks):
    key, token = keys.create(local, "shop", ["transfer"])
    _, unused = keys.create(local, "unused", ["transfer"])

    async def asks() -> None:
        door = Gate(local, clock=clock)
        await entered(door, bearer(token))
        looks.append("silent")
        for _ in range(3):
            clock.now += gate.TRUSTED / 4
            await entered(door, bearer(token))
            with pytest.raises(StoreUnavailable):
                await entered(door, bearer(f"et_{'0' * 16}_{'A' * 43}"))
            with pytest.raises(Unauthorized):
                await entered(door, None)
            with pytest.raises(Unauthorized):
                await entered(door, bearer(f"et_{key.key_id}_{'A' * 43}"))
        clock.now += gate.TRUSTED
        with pytest.raises(StoreUnavailable):
            await entered(door, bearer(token))
        looks.clear()
        clock.now += gate.PAUSE
        assert (await entered(door, bearer(token))).key_id == key.key_id
        assert (await entered(door, bearer(unused))).name == "unused"

    asyncio.run(asks())


def test_nobody_gets_in_where_nobody_knows_whether_there_are_keys(local, clock, looks):
    async def asks() -> None:
        door = Gate(local, clock=clock)
        assert await entered(door, None) is ANONYMOUS
        looks.append("silent")
        clock.now += gate.FRESH + 0.1
        with pytest.raises(StoreUnavailable):
            await entered(door, None)
        fresh = Gate(local, clock=clock)
        with pytest.raises(StoreUnavailable):
            await fresh.required()

    asyncio.run(asks())


def test_a_store_that_hangs_holds_nobody_up_for_long(local, clock, monkeypatch):
    _, token = keys.create(local, "shop", ["transfer"])
    answer, listing = threading.Event(), keys.directory

    async def asks() -> None:
        door = Gate(local, clock=clock, patience=0.05)
        await entered(door, bearer(token))
        monkeypatch.setattr(keys, "directory", lambda address: answer.wait() and listing(address))
        clock.now += gate.FRESH + 0.1
        try:
            await asyncio.gather(*(entered(door, bearer(token)) for _ in range(SEVERAL)))
        finally:
            answer.set()

    asyncio.run(asks())
