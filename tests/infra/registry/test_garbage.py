from datetime import timedelta
from pathlib import Path

import pytest

from infra import store
from infra.errors import AdapterNotFound
from infra.registry import collect, delete, document, lease, promote, publish, reading, resolve, versions

NOW = timedelta(0)


def claimed(registry: str, number: int, publication: str = "mine") -> str:
    """What a publisher leaves that is killed before it writes adapter.json."""
    uri = f"{registry}/a/versions/{number:06d}"
    claim = {"publication": publication, "by": "x", "at": document.now().isoformat()}
    store.write(f"{uri}/claim.json", document.encoded(claim))
    store.write(f"{uri}/adapter.safetensors", b"half")
    return uri


def uris(registry: str) -> set[str]:
    return {found.uri for found in store.list_objects(registry)}


def test_a_claim_that_was_never_finished_is_collected_when_it_is_old(registry, files, about):
    uri = claimed(registry, 1)
    publish(registry, "a", files, about)
    assert collect(registry) == []
    there = uris(registry)
    found = collect(registry, older_than=NOW, dry_run=True)
    assert [(each.uri, each.size, each.why) for each in found] == [(f"{uri}/adapter.safetensors", 4, "never finished")]
    assert uris(registry) == there
    assert collect(registry, older_than=NOW) == found
    assert uris(registry) == there - {found[0].uri} | {f"{uri}/deleted.json"}
    assert collect(registry, older_than=NOW) == []
    assert resolve(registry, "a@2") and publish(registry, "a", files, about, publication="mine").number == 3


def test_a_publisher_whose_claim_was_collected_starts_again(local, files, about, monkeypatch):
    """The collection is let in right before the publisher seals, by a store that does so."""
    write = store.local.LocalStore.write_if_absent
    first = iter([True])

    def after_a_collection(self, uri, data):
        if uri.endswith("000001/adapter.json") and next(first, False):
            assert len(collect(local, older_than=NOW)) == len(files)
        return write(self, uri, data)

    monkeypatch.setattr(store.local.LocalStore, "write_if_absent", after_a_collection)
    assert publish(local, "a", files, about).number == 2
    assert [version.number for version in versions(local, "a")] == [2]
    assert {Path(each.uri).name for each in collect(local, older_than=NOW)} <= {"adapter.json"}


def test_a_collection_that_was_killed_is_completed_by_the_next(registry, files, about):
    uri = claimed(registry, 1)
    store.write(f"{uri}/adapter.json", document.encoded({reading.ABANDONED: "now"}))
    with pytest.raises(AdapterNotFound):
        resolve(registry, "a")
    assert publish(registry, "a", files, about, publication="mine").number == 2
    collect(registry, older_than=NOW)
    assert {found for found in uris(registry) if found.startswith(uri)} == {f"{uri}/claim.json", f"{uri}/deleted.json"}
    assert resolve(registry, "a").number == 2


def test_what_a_killed_deletion_left_is_invisible_and_collected(registry, files, about):
    version = publish(registry, "a", files, about)
    tombstone = {"by": "x", "at": document.now().isoformat()}
    store.write(f"{version.uri}/deleted.json", document.encoded(tombstone))
    assert versions(registry, "a") == [] and collect(registry) == []
    assert {each.why for each in collect(registry, older_than=NOW)} == {"deleted version"}
    assert uris(version.uri) == {f"{version.uri}/claim.json", f"{version.uri}/deleted.json"}


def test_what_is_in_use_is_no_garbage(registry, files, about):
    for number in (1, 2):
        publish(registry, "a", files, about, publication=str(number))
        promote(registry, "a", number)
    collect(registry, older_than=NOW)
    there = uris(registry)
    with lease(registry, "a", "train"):
        assert collect(registry, older_than=NOW) == []
    assert {each.why for each in collect(registry, older_than=NOW)} == {"lease that is over"}
    assert uris(registry) == there


def test_files_of_an_attempt_before_and_half_written_ones_are_collected(local, files, about):
    claimed(local, 1)
    store.write(f"{local}/a/versions/000001/sheet.png", b"of the first attempt")
    version = publish(local, "a", files, about, publication="mine")
    half = Path(version.uri, ".writing-0123")
    half.write_bytes(b"ha")
    assert collect(local) == []
    assert {Path(each.uri).name for each in collect(local, older_than=NOW)} >= {"sheet.png", ".writing-0123"}
    assert uris(version.uri) == {f"{version.uri}/{path}" for path in (*files, "claim.json", "adapter.json")}


def test_only_the_adapter_that_is_named_is_looked_at(local, files, about):
    publish(local, "b", files, about)
    delete(local, "b", 1)
    claimed(local, 1)
    assert collect(local, "b", older_than=NOW) == [] and len(collect(local, older_than=NOW)) == 1
