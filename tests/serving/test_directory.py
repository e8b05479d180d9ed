"""The registry as the endpoint sees it: quick, never behind, never going back, and patient with outages."""

import asyncio
import threading

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
        clock.now += 1.0
        await directory.find("lift@production")
        assert len(asked) == 1
        clock.now += 0.1
        await directory.find("lift@production")
        assert len(asked) == 2
        await directory.find("lift@2")
        clock.now += FIXED_FRESH
        await directory.find("lift@2")
        assert asked.count("lift@2") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("ref", ["lift", "lift@production"])
def test_what_is_asked_for_after_a_move_is_what_was_moved_to(place, ref):
    async def scenario() -> None:
        directory = Directory(place, REVISION, 60.0, Clock())
        for number in (1, 2, 1):
            registry.promote(place, "lift", number)
            assert (await directory.find(ref)).version.number == number
        registry.rollback(place, "lift")
        assert (await directory.find(ref)).version.number == 2

    asyncio.run(scenario())


def test_a_bare_name_without_production_means_what_was_published_last(place):
    async def scenario() -> None:
        directory = Directory(place, REVISION, 60.0, Clock())
        for number in (1, 2):
            registry.publish(place, "bare", {"adapter.safetensors": b"%d" % number}, {})
            assert (await directory.find("bare")).version.number == number

    asyncio.run(scenario())


def test_a_look_that_began_before_is_not_an_answer(place, monkeypatch):
    """Two ask while a look is under way that saw the old version: both get the next one's answer, which they share."""
    asked, mark, may_end = [], registry.mark, threading.Event()

    def slow(address: str, ref: str) -> tuple[int, ...]:
        asked.append(ref)
        seen = mark(address, ref)
        assert may_end.wait(60)
        return seen

    async def scenario() -> None:
        directory = Directory(place, REVISION, 60.0)
        await directory.find("lift")
        monkeypatch.setattr(registry, "mark", slow)
        early = asyncio.create_task(directory.find("lift"))
        while not asked:
            await asyncio.sleep(0)
        registry.promote(place, "lift", 2)
        late = [asyncio.create_task(directory.find("lift")) for _ in range(2)]
        await asyncio.sleep(0)
        may_end.set()
        assert [(await each).version.number for each in (early, *late)] == [1, 2, 2] and len(asked) == 2

    asyncio.run(scenario())


def test_whoever_can_do_without_does_not_wait_for_a_registry_that_hangs(place, monkeypatch):
    asked, may_end, clock = [], threading.Event(), Clock()

    async def scenario() -> None:
        directory = Directory(place, REVISION, 1.0, clock)
        await directory.find("lift")
        monkeypatch.setattr("serving.app.directory.PATIENCE", 0.01)
        monkeypatch.setattr(registry, "mark", lambda *ref: asked.append(ref) or may_end.wait(60))
        assert [(await directory.find("lift")).version.number for _ in range(5)] == [1] * 5
        assert directory.trouble and len(asked) == 1
        may_end.set()

    asyncio.run(scenario())


def test_an_outage_changes_nothing_for_what_is_known(place, monkeypatch):
    clock = Clock()

    async def scenario() -> None:
        directory = Directory(place, REVISION, 1.0, clock)
        await directory.find("lift")
        with monkeypatch.context() as broken:
            broken.setattr(registry, "mark", unreachable)
            clock.now += 10
            assert (await directory.find("lift")).version.number == 1 and directory.trouble
            with pytest.raises(StoreUnavailable):
                await directory.find("other")
        registry.promote(place, "lift", 2)
        clock.now += 10
        assert (await directory.find("lift")).version.number == 2 and directory.trouble is None

    asyncio.run(scenario())


def unreachable(address: str, ref: str) -> tuple[int, ...]:
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
