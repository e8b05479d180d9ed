"""The registry as the endpoint sees it: quick, never behind for long, never going back, and patient with outages."""

import asyncio

import pytest

from infra import registry, store
from infra.errors import AdapterNotFound, StoreUnavailable, UsageError
from serving.app.directory import FIXED_FRESH, Directory

REVISION = "r" * 64


@pytest.fixture
def place(tmp_path):
    address = str(tmp_path / "registry")
    about = {"base": {"name": "b", "revision": REVISION}}
    for content in (b"one", b"two"):
        registry.publish(address, "lift", {"adapter.safetensors": content}, about)
    registry.promote(address, "lift", 1)
    return address


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(monkeypatch) -> list[str]:
    asked, resolve = [], registry.resolve
    monkeypatch.setattr(registry, "resolve", lambda address, ref: asked.append(ref) or resolve(address, ref))
    return asked


def test_many_that_ask_at_once_look_once(place, monkeypatch):
    asked, clock = counted(monkeypatch), Clock()

    async def scenario() -> None:
        directory = Directory(place, REVISION, 1.0, clock)
        found = await asyncio.gather(*(directory.find("lift@production:0.5") for _ in range(50)))
        assert {each.told for each in found} == {"lift@1:0.5"} and asked == ["lift@production"]
        registry.promote(place, "lift", 2)
        clock.now += 1.0
        assert (await directory.find("lift@production")).version.number == 1
        clock.now += 0.1
        assert (await directory.find("lift@production")).version.number == 2 and len(asked) == 2
        await directory.find("lift@2")
        clock.now += FIXED_FRESH
        await directory.find("lift@2")
        assert asked.count("lift@2") == 1

    asyncio.run(scenario())


def test_an_outage_changes_nothing_for_what_is_known(place, monkeypatch):
    clock = Clock()

    async def scenario() -> None:
        directory = Directory(place, REVISION, 1.0, clock)
        await directory.find("lift")
        with monkeypatch.context() as broken:
            broken.setattr(registry, "resolve", unreachable)
            clock.now += 10
            assert (await directory.find("lift")).version.number == 1 and directory.trouble
            with pytest.raises(StoreUnavailable):
                await directory.find("other")
        registry.promote(place, "lift", 2)
        clock.now += 10
        assert (await directory.find("lift")).version.number == 2 and directory.trouble is None

    asyncio.run(scenario())


def unreachable(address: str, ref: str) -> registry.Version:
    raise StoreUnavailable("The bucket does not answer.")


def test_what_was_deleted_is_gone(place):
    clock = Clock()

    async def scenario() -> None:
        directory = Directory(place, REVISION, 1.0, clock)
        await directory.find("lift@2")
        registry.delete(place, "lift", 2)
        clock.now += 2 * FIXED_FRESH
        with pytest.raises(AdapterNotFound, match="deleted"):
            await directory.find("lift@2")

    asyncio.run(scenario())


def test_a_version_that_is_half_published_is_not_there(place):
    uri = store.join(place, "half", "versions", "000001")
    store.write(store.join(uri, "adapter.safetensors"), b"weights")
    store.write(store.join(uri, "claim.json"), b"{}")

    async def scenario() -> None:
        directory = Directory(place, REVISION)
        for ref in ("half", "half@1", "half@production"):
            with pytest.raises(AdapterNotFound):
                await directory.find(ref)

    asyncio.run(scenario())


@pytest.mark.parametrize(("ref", "error"), [("lift:x", UsageError), ("A B", UsageError), ("lift@1", AdapterNotFound)])
def test_what_cannot_be_used_is_refused(place, ref, error):
    with pytest.raises(error):
        asyncio.run(Directory(place, "s" * 64).find(ref))
