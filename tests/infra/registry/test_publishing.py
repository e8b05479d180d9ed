import signal
import subprocess
import sys

import pytest

from infra import registry as registries
from infra import store
from infra.errors import AdapterNotFound, LeaseHeld, RegistryError
from infra.registry import Version, publish, resolve, versions


def test_what_is_published_is_found_with_all_that_was_told_about_it(registry, files, about):
    made = publish(registry, "lift-arms", files, about)
    found = resolve(registry, "lift-arms@1")
    assert isinstance(found, Version) and found == made and found.ref == "lift-arms@1"
    assert found.about.items() >= about.items() and list(found.about["scores"]) == ["recovered", "a"]
    assert found.files.keys() == files.keys() and found.files["card.md"]["size"] == len(files["card.md"])
    assert registries.names(registry) == ["lift-arms"]


def test_the_same_content_published_twice_makes_two_versions(registry, files, about):
    first, second = (publish(registry, "a", files, about) for _ in range(2))
    assert (first.number, second.number) == (1, 2) and first.digest != second.digest


def test_one_piece_of_work_is_published_once(registry, files, about):
    first = publish(registry, "a", files, about, publication="train 7")
    publish(registry, "a", files, about)
    assert publish(registry, "a", {"other": b""}, {}, publication="train 7") == first
    assert [version.number for version in versions(registry, "a")] == [1, 2]


def test_a_bare_name_is_the_newest_version_until_one_is_promoted(registry, files, about):
    for _ in range(3):
        publish(registry, "a", files, about)
    assert resolve(registry, "a").number == 3
    registries.promote(registry, "a", 1)
    assert resolve(registry, "a").number == resolve(registry, "a@production").number == 1


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", "-a", "a" * 65, "ü", "a@b", "a\n"])
def test_names_that_could_lead_anywhere_are_refused(local, name):
    with pytest.raises(RegistryError, match="cannot be the name of an adapter"):
        publish(local, name, {}, {})


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", ".hidden", "adapter.json", "claim.json", "a\\b"])
def test_paths_that_could_lead_anywhere_are_refused(local, path):
    with pytest.raises(RegistryError, match="cannot be a file"):
        publish(local, "a", {path: b""}, {})
    assert list(store.list_objects(local)) == []


@pytest.mark.parametrize("about", [{"scores": {"x": float("nan")}}, {"x": object()}, {"version": 3}])
def test_what_cannot_be_told_is_refused_before_a_number_is_claimed(local, about):
    with pytest.raises(RegistryError):
        publish(local, "a", {}, about)
    assert list(store.list_objects(local)) == []


@pytest.mark.parametrize("ref", ["b", "a@2", "a@x", "b@x"])
def test_what_is_not_there_is_told_with_what_is(local, files, about, ref):
    publish(local, "a", files, about)
    with pytest.raises(AdapterNotFound, match=rf"{ref.split('@')[0]}.* in .*(; .*a|versions are 1|none yet)"):
        resolve(local, ref)


def test_a_registry_at_a_relative_or_a_file_address_is_the_same(tmp_path, monkeypatch, files, about):
    monkeypatch.chdir(tmp_path)
    for number, address in enumerate(("./r/", "r", f"file://{tmp_path}/r", f"{tmp_path}/r"), start=1):
        assert publish(address, "a", files, about).number == number
        assert registries.names(address) == ["a"] and resolve(address, "a").number == number


KILLED = """
import sys
from infra import registry, store
write = store.local.LocalStore.write_if_absent
def stop(self, uri, data):
    if uri.endswith("adapter.json"):
        print("here", flush=True)
        sys.stdin.readline()
    return write(self, uri, data)
store.local.LocalStore.write_if_absent = stop
registry.publish(sys.argv[1], "a", {"adapter.safetensors": b"half", "card.md": b"card"}, {}, publication="train 7")
"""


def publisher_stopped_before_its_seal(where: str) -> subprocess.Popen:
    """A publisher that has written every file, and waits before it writes adapter.json."""
    publisher = subprocess.Popen([sys.executable, "-c", KILLED, where], stdin=-1, stdout=-1, text=True)
    assert publisher.stdout.readline() == "here\n"
    return publisher


def test_a_killed_publisher_is_invisible_and_is_gone_on_with_under_its_number(local, files, about):
    publisher = publisher_stopped_before_its_seal(local)
    with pytest.raises(LeaseHeld, match="publish-"):
        publish(local, "a", files, about, publication="train 7")
    publisher.send_signal(signal.SIGKILL)
    publisher.communicate()
    assert len(list(store.list_objects(f"{local}/a/versions"))) == 3
    assert registries.names(local) == [] == versions(local, "a")
    with pytest.raises(AdapterNotFound):
        resolve(local, "a")
    assert publish(local, "a", files, about).number == 2
    resumed = publish(local, "a", files, about, publication="train 7")
    assert resumed.number == 1 and registries.read_file(resumed, "card.md") == files["card.md"]
    assert publish(local, "a", files, about).number == 3


def test_a_claim_and_its_files_left_on_a_bucket_are_gone_on_with(registry, files, about):
    store.write(f"{registry}/a/versions/000001/claim.json", b'{"publication": "other", "by": "x", "at": "x"}')
    store.write(f"{registry}/a/versions/000002/claim.json", b'{"publication": "mine", "by": "x", "at": "x"}')
    store.write(f"{registry}/a/versions/000002/card.md", b"half")
    assert versions(registry, "a") == []
    assert publish(registry, "a", files, about, publication="mine").number == 2
    assert publish(registry, "a", files, about).number == 3


FULL = """
import resource, signal, sys
from infra import registry
from infra.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    registry.publish(sys.argv[1], "a", {"adapter.safetensors": b"x" * 200_000}, {}, publication="train 7")
except StoreError as error:
    print(error)
"""


def test_a_full_disk_is_a_sentence_and_the_publication_goes_on_once_there_is_room(local, about):
    told = subprocess.run([sys.executable, "-c", FULL, local], capture_output=True, text=True, check=True)
    assert "adapter.safetensors: file too large." in told.stdout
    assert versions(local, "a") == [] and list(store.leftovers(local)) == []
    made = publish(local, "a", {"adapter.safetensors": b"x" * 200_000}, about, publication="train 7")
    assert made.number == 1 and resolve(local, "a") == made
