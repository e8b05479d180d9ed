"""The gate: who gets in, and as whom."""

import asyncio

import pytest

from infra import store
from infra.errors import Forbidden, Unauthorized
from serving.access import ANONYMOUS, Gate, gate, keys
from tests.serving.doors import bearer, entered


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
