"""The gate, with a clock that the test turns."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from infra import store
from infra.errors import Forbidden, StoreUnavailable, TooMany, Unauthorized
from serving.access import ANONYMOUS, Gate, gate, keys

SEVERAL = 50


@pytest.fixture(params=["local", "moto"])
def serving(request, tmp_path) -> str:
    if request.param == "moto":
        return request.getfixturevalue("moto_bucket") + "/the endpoint"
    return str(tmp_path / "serving")


@pytest.fixture
def local(tmp_path) -> str:
    return str(tmp_path / "serving")


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


def bearer(token: str) -> str:
    return f"Bearer {token}"


async def entered(door: Gate, authorization: str | None, scope: str | None = None):
    async with door.enter(authorization, scope) as caller:
        return caller


def test_a_revoked_key_stays_revoked(serving):
    key, token = keys.create(serving, "shop", ["transfer"])
    first = keys.revoke(serving, key.key_id)
    assert first.revoked_at and keys.revoke(serving, key.key_id) == first == keys.listed(serving)[0]

    async def asks() -> None:
        door = Gate(serving)
        assert await door.required()  # a revoked key does not open the door to everybody
        with pytest.raises(Unauthorized, match="was revoked"):
            await entered(door, bearer(token))
        with pytest.raises(Unauthorized):
            await entered(door, None)
        assert await door.key(key.key_id) is None

    asyncio.run(asks())


def test_without_any_key_everybody_may_do_everything(serving):
    async def asks() -> None:
        door = Gate(serving)
        assert not await door.required()
        for sent in (None, "Bearer anything", "nonsense"):
            assert await entered(door, sent, "admin") is ANONYMOUS

    asyncio.run(asks())


def test_a_key_enters_with_its_scopes(serving):
    key, token = keys.create(serving, "shop", ["transfer"])
    _, admin = keys.create(serving, "boss", ["admin"])

    async def asks() -> None:
        door = Gate(serving)
        caller = await entered(door, bearer(token), "transfer")
        assert (caller.key_id, caller.name, caller.scopes) == (key.key_id, "shop", {"transfer"})
        assert not caller.is_admin and await entered(door, bearer(token)) == caller
        assert await entered(door, f"bearer  {token}") == caller  # the scheme has no case
        with pytest.raises(Forbidden, match="scope jobs, only transfer"):
            await entered(door, bearer(token), "jobs")
        assert (await entered(door, bearer(admin), "jobs")).is_admin
        assert await door.key(key.key_id) == key

    asyncio.run(asks())


def test_what_is_no_valid_key_is_refused(local):
    key, token = keys.create(local, "shop", ["transfer"])
    other = keys.create(local, "other", ["transfer"])[1].split("_", 2)[2]
    wrong = [None, "", "Bearer", "Bearer ", token, f"Basic {token}", bearer(token[:-1]), bearer(f"{token}A")]
    wrong += [bearer(f"et_{'0' * 16}_{other}"), bearer(f"et_{key.key_id}_{other}"), bearer(token.upper())]
    wrong += [bearer("et_../../etc/passwd_x"), bearer("\x00"), bearer("é" * 10_000)]

    async def asks() -> None:
        door = Gate(local)
        for sent in wrong:
            with pytest.raises(Unauthorized) as refused:
                await entered(door, sent)
            assert other not in str(refused.value)
        told = {str(await error(door, bearer(f"et_{key_id}_{other}"))) for key_id in ("0" * 16, key.key_id)}
        assert len(told) == 1  # nobody learns which ids there are

    async def error(door: Gate, sent: str) -> Exception:
        with pytest.raises(Unauthorized) as refused:
            await entered(door, sent)
        return refused.value

    asyncio.run(asks())


def test_unknown_keys_cost_as_much_as_known_ones(local, monkeypatch):
    """Every try hashes what was sent and compares it in constant time."""
    key, token = keys.create(local, "shop", ["transfer"])
    compared = list[tuple[str, str]]()
    compare = gate.hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda *both: compared.append(both) or compare(*both))

    async def asks() -> None:
        door = Gate(local)
        await entered(door, bearer(token))
        for key_id in (key.key_id, "0" * 16):
            with pytest.raises(Unauthorized):
                await entered(door, bearer(f"et_{key_id}_{'A' * 43}"))

    asyncio.run(asks())
    assert [len(one) == len(other) == 64 for one, other in compared] == [True] * 3


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


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"scopes": []}', b'{"rate": "many", "concurrency": 0}'])
def test_a_damaged_record_lets_nobody_in_and_keeps_nobody_out(local, damage):
    key, token = keys.create(local, "shop", ["transfer"])
    _, other = keys.create(local, "other", ["transfer"])
    store.write(f"{local}/keys/{key.key_id}.json", damage)

    async def asks() -> None:
        door = Gate(local)
        with pytest.raises(Unauthorized):
            await entered(door, bearer(token))
        assert (await entered(door, bearer(other))).name == "other"

    asyncio.run(asks())
