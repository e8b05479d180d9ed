import pytest

from infra import store
from infra.errors import AdapterDamaged
from infra.registry import log


def test_the_highest_number_rules_and_none_is_written_twice(registry):
    uri = store.join(registry, "log")
    assert log.latest(uri) is None and log.entries(uri) == []
    assert log.append(uri, 1, {"a": 1}) and log.append(uri, 2, {"a": 2})
    assert not log.append(uri, 2, {"a": 3})
    assert log.latest(uri) == (2, {"a": 2})
    assert log.entries(uri) == [(1, {"a": 1}), (2, {"a": 2})]


def test_numbers_are_numbers_beyond_their_padding_too(registry):
    uri = store.join(registry, "log")
    for number in (999_999, 1_000_000):
        assert log.append(uri, number, {})
    store.write(store.join(uri, "note.txt"), b"no entry")
    assert log.numbers(uri) == [999_999, 1_000_000]


def test_an_entry_that_is_no_json_object_is_named(local):
    for text in (b"{", b"[]", b"\xff"):
        store.write(log.entry_uri(local, 7), text)
        with pytest.raises(AdapterDamaged, match=r"000007\.json"):
            log.latest(local)
