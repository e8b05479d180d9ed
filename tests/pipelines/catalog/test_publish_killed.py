"""`edit-transfer publish` and `revert`, killed everywhere."""

import importlib
import secrets
import shutil
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from infra import store
from pipelines.catalog import publication
from tests.pipelines.catalog.shops import Shop, stocked

VERBS = ("write", "write_if_absent", "copy", "delete")

lease_module = importlib.import_module("infra.registry.lease")


class Killed(BaseException):
    """What nothing in the program catches, as SIGKILL."""


@pytest.fixture
def shop(tmp_path) -> Shop:
    return stocked(str(tmp_path / "out"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(publication, "CHUNK", 2)


def killed_after(calls: int, act: Callable[[], Any]) -> bool:
    """Whether `act` wanted more than so many changes of the store: then it gets no more, and ends as killed."""
    left = iter(range(calls))

    def until(verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return verb(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in VERBS:
            patch.setattr(store, name, until(getattr(store, name)))
        try:
            act()
        except Killed:
            lease_module._PROCESS = secrets.token_hex(8)  # as another process sees its lease
            return True
    return False


@pytest.fixture
def restart(shop, tmp_path, monkeypatch) -> Callable[[], None]:
    """Brings back the state that the shop is in at the first call."""
    monkeypatch.setattr(lease_module, "_PROCESS", lease_module._PROCESS)  # the kills change it
    saved = tmp_path / "saved"

    def again() -> None:
        if saved.exists():
            shutil.rmtree(shop.place)
            shutil.copytree(saved, shop.place)
        else:
            shutil.copytree(shop.place, saved)

    return again


def test_publish_may_be_killed_between_any_two_of_its_changes(shop, restart):
    restart()
    before = shop.state
    shop.publish()
    published = shop.state
    for calls in count():
        restart()
        killed = killed_after(calls, shop.publish)
        if calls % 3 == 0:
            killed_after(calls // 2, shop.publish)  # once more, on the way
        shop.publish()
        assert shop.state == published, calls
        if calls % 4 == 0:
            shop.revert()
            assert shop.state == before, calls
        if not killed:
            break
    assert calls > 20


@pytest.mark.slow
def test_revert_may_be_killed_between_any_two_of_its_changes(shop, restart):
    before = shop.state
    shop.publish()
    published = shop.state
    for calls in count():
        restart()
        killed = killed_after(calls, shop.revert)
        if calls % 4 == 1:
            shop.publish()  # instead of reverting again
            assert shop.state == published, calls
        shop.revert()
        assert shop.state == before, calls
        if not killed:
            break
    assert calls > 20


def test_a_killed_publication_can_be_reverted(shop, restart):
    before = shop.state
    for calls in count(step=3):
        restart()
        killed = killed_after(calls, shop.publish)
        shop.revert()
        assert shop.state == before, calls
        if not killed:
            break
