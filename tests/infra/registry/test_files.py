import json
import subprocess
import sys

import pytest

from infra import registry as registries
from infra import store
from infra.errors import AdapterDamaged, AdapterNotFound, RegistryError
from infra.registry import document, fetch, promote, publish, read_file, resolve


@pytest.fixture
def version(registry, files, about):
    return publish(registry, "a", files, about)


def test_files_are_read_and_copied_as_they_were_published(version, files, tmp_path):
    assert read_file(version, "card.md") == files["card.md"]
    assert fetch(version, tmp_path / "copy") == tmp_path / "copy"
    assert {path: (tmp_path / "copy" / path).read_bytes() for path in files} == files
    with pytest.raises(RegistryError, match=r"no file nothing.md; it has adapter.safetensors, card.md"):
        read_file(version, "nothing.md")


def test_a_right_copy_is_kept_and_a_wrong_one_is_replaced(version, files, tmp_path):
    fetch(version, tmp_path)
    kept = (tmp_path / "adapter.safetensors").stat()
    (tmp_path / "card.md").write_bytes(b"wrong")
    fetch(version, tmp_path)
    assert (tmp_path / "card.md").read_bytes() == files["card.md"]
    now = (tmp_path / "adapter.safetensors").stat()
    assert (now.st_ino, now.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


FETCHER = """
import sys
from pathlib import Path
from infra import registry
sys.stdin.readline()
registry.fetch(registry.resolve(sys.argv[1], "a"), Path(sys.argv[2]))
"""


def test_processes_may_fetch_into_one_folder_at_once(local, files, about, tmp_path):
    publish(local, "a", files, about)
    command = [sys.executable, "-c", FETCHER, local, str(tmp_path / "copy")]
    fetchers = [subprocess.Popen(command, stdin=-1) for _ in range(4)]
    for fetcher in fetchers:
        fetcher.stdin.write(b"go\n")
        fetcher.stdin.flush()
    assert [fetcher.wait() for fetcher in fetchers] == [0] * 4
    found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == files.keys()


def test_a_changed_or_missing_file_is_named_and_never_handed_out(version, tmp_path):
    store.write(f"{version.uri}/card.md", b"tampered")
    store.delete(f"{version.uri}/pairs/a_before.png")
    for path in ("card.md", "pairs/a_before.png"):
        with pytest.raises(AdapterDamaged, match=path):
            read_file(version, path)
    with pytest.raises(AdapterDamaged, match=r"card\.md"):
        fetch(version, tmp_path)
    assert not (tmp_path / "card.md").exists()


def test_a_changed_adapter_json_is_refused(version, registry):
    uri = f"{version.uri}/adapter.json"
    for changed in (version.about | {"rank": 9}, version.about | {"digest": "0" * 64}, {}, []):
        store.write(uri, json.dumps(changed).encode())
        with pytest.raises(AdapterDamaged, match=r"adapter\.json"):
            resolve(registry, "a@1")
    store.write(uri, document.encoded(version.about))
    assert resolve(registry, "a@1") == version


def test_a_version_put_in_the_place_of_another_is_refused(version, registry, files, about):
    publish(registry, "a", files, about)
    store.write(f"{registry}/a/versions/000002/adapter.json", document.encoded(version.about))
    with pytest.raises(AdapterDamaged, match="a@2"):
        resolve(registry, "a@2")


def test_a_version_published_anew_behind_an_alias_is_refused(version, registry):
    promote(registry, "a", 1)
    rest = {key: value for key, value in version.about.items() if key != "digest"}
    store.write(f"{version.uri}/adapter.json", document.encoded(document.sealed(rest | {"rank": 99})))
    assert resolve(registry, "a@1").about["rank"] == 99
    with pytest.raises(AdapterDamaged, match="promoted to production"):
        resolve(registry, "a")


def test_a_changed_alias_is_refused(version, registry):
    promote(registry, "a", 1)
    uri = f"{registry}/a/aliases/production/000001.json"
    whole = json.loads(store.read(uri))
    for changed in (b"{", b"{}", json.dumps(whole | {"version": "1"}).encode()):
        store.write(uri, changed)
        with pytest.raises(AdapterDamaged, match=r"production/000001\.json"):
            resolve(registry, "a")


def test_a_hostile_registry_cannot_write_outside_the_folder(version, registry, tmp_path):
    rest = {key: value for key, value in version.about.items() if key != "digest"}
    stolen = {"../out": rest["files"]["card.md"]}
    store.write(f"{version.uri}/adapter.json", document.encoded(document.sealed(rest | {"files": stolen})))
    with pytest.raises(RegistryError, match=r"\.\./out"):
        fetch(resolve(registry, "a@1"), tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_version_deleted_in_between_is_told_from_a_damaged_one(version, registry):
    registries.delete(registry, "a", 1)
    with pytest.raises(AdapterNotFound, match="a@1 was deleted"):
        read_file(version, "card.md")
