import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import store
from infra.errors import LeaseHeld, NotInStore, StoreError, StoreUnavailable
from infra.registry import lease


@pytest.fixture(params=["local", "memory", "moto", "ceph"])
def root(request, tmp_path):
    if request.param in ("moto", "ceph"):
        return request.getfixturevalue(f"{request.param}_bucket") + "/a folder"
    return str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"


def test_what_is_written_is_read_listed_and_deleted(root):
    uri = store.join(root, "a folder", "ü.bin")
    store.write(uri, b"one")
    first = store.stat(uri)
    store.write(uri, b"other")
    assert store.read(uri) == b"other" and store.read(uri, 2) == b"ot"
    assert [found.uri for found in store.list_objects(root)] == [uri]
    assert store.stat(uri).size == 5 and store.stat(uri).etag != first.etag
    store.delete(uri)
    store.delete(uri)
    assert store.stat(uri) is None and list(store.list_objects(root)) == []
    with pytest.raises(NotInStore):
        store.read(uri)


def test_a_copy_replaces_and_is_the_same_in_every_kind_of_store(root, tmp_path):
    source, target = store.join(root, "sub/ü +%.bin"), store.join(root, "copies/1")
    store.write(target, b"old")
    store.write(source, b"exact bytes")
    store.copy(source, target)
    store.copy(target, str(tmp_path / "elsewhere"))
    store.copy(str(tmp_path / "elsewhere"), store.join(root, "back"))
    assert store.read(target) == store.read(source) == store.read(store.join(root, "back")) == b"exact bytes"
    with pytest.raises(NotInStore):
        store.copy(store.join(root, "nothing"), target)
    assert store.read(target) == b"exact bytes" and not list(store.leftovers(root))


def test_the_beginning_of_an_object_may_be_more_than_there_is(root):
    for name, data in (("empty", b""), ("short", b"12345")):
        store.write(store.join(root, name), data)
        for limit in (0, 1, 5, 100, None):
            assert store.read(store.join(root, name), limit) == data[:limit]
    with pytest.raises(NotInStore):
        store.read(store.join(root, "nothing"), 10)


def test_hidden_names_are_not_listed(root):
    for name in (".hidden", ".folder/a", "sub/.b", "sub/c"):
        store.write(store.join(root, name), b"x")
    assert [found.uri for found in store.list_objects(root)] == [store.join(root, "sub/c")]


def test_the_first_writer_keeps_the_name(root):
    uri = store.join(root, "name")
    assert store.write_if_absent(uri, b"first")
    assert not store.write_if_absent(uri, b"second")
    assert store.read(uri) == b"first"


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_the_first_writer_keeps_the_name_where_no_links_can_be_made(tmp_path, monkeypatch, refusal):
    """As on FAT, and on some network disks."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refused)
    test_the_first_writer_keeps_the_name(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    with lease(str(tmp_path), "a", "train"), pytest.raises(LeaseHeld), lease(str(tmp_path), "a", "train"):
        pass


RACER = """
import sys
from infra import store
root, me = sys.argv[1:]
sys.stdin.readline()
print("".join("1" if store.write_if_absent(f"{root}/{n}", me.encode() * 5000) else "0" for n in range(50)))
"""


@pytest.mark.parametrize("where", ["tmp_path", "ceph_bucket"])
def test_of_racing_processes_exactly_one_writes_each_name(request, where):
    root = str(request.getfixturevalue(where))
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, root, str(me)], stdin=-1, stdout=-1, text=True)
        for me in range(4)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].strip() for racer in racers]
    for name in range(50):
        winners = [str(me) for me, record in enumerate(won) if record[name] == "1"]
        assert len(winners) == 1
        assert store.read(f"{root}/{name}") == winners[0].encode() * 5000
    assert len(list(store.list_objects(root))) == 50 and not list(store.leftovers(root))


OVERWRITER = """
import sys
from infra import store
while True:
    for letter in (b"a", b"b"):
        store.write(sys.argv[1], letter * 200_000)
"""


def test_a_reader_never_sees_half_a_write_even_of_a_killed_writer(tmp_path):
    path = tmp_path / "object"
    store.write(str(path), b"a" * 200_000)
    writer = subprocess.Popen([sys.executable, "-c", OVERWRITER, str(path)])
    try:
        seen = {bytes(store.read(str(path))) for _ in range(300)}
        while b"b" * 200_000 not in seen:
            seen.add(store.read(str(path)))
    finally:
        writer.kill()
        writer.wait()
    assert all(".writing-" in found.uri for found, _ in store.leftovers(str(tmp_path)))
    assert seen | {store.read(str(path))} == {b"a" * 200_000, b"b" * 200_000}
    assert [found.uri for found in store.list_objects(str(tmp_path))] == [str(path)]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a file"):
        store.read(str(tmp_path / "pipe"))


def test_what_the_disk_refuses_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for uri in (str(tmp_path / "file" / "below"), str(tmp_path / ("x" * 300)), "nul\0byte"):
        with pytest.raises(StoreError):
            store.write(uri, b"")


def test_a_folder_that_may_not_be_listed_does_not_look_empty(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreError, match="loop"):
        list(store.list_objects(str(tmp_path / "loop")))
    assert list(store.list_objects(str(tmp_path / "nowhere"))) == []


FILLER = """
import resource, signal, sys
from infra import store
from infra.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (store.write, store.write_if_absent):
    try:
        write(sys.argv[1], b"new" * 1000)
    except StoreError as error:
        print(error)
"""


def test_a_write_that_does_not_fit_on_the_disk_changes_nothing(tmp_path):
    path = tmp_path / "object"
    store.write(str(path), b"old")
    told = subprocess.run([sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, check=True)
    assert told.stdout.count(f"{path}: file too large.") == 2
    assert [found.name for found in tmp_path.iterdir()] == ["object"] and path.read_bytes() == b"old"


DISK_FULL = """
import sys
from infra import store
try:
    store.write(sys.argv[1], b"x" * 100_000)
except store.StoreError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("options", "told"), [("size=4k", "no space left on device"), ("ro", "read-only file system")])
def test_a_full_or_read_only_disk_is_unavailable_and_not_one_bad_name(tmp_path, options, told):
    if not shutil.which("unshare"):
        pytest.skip("Mounting a disk takes unshare: run the tests on Linux, with util-linux")
    mounted = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$2" -c "$3" "$1/object"'
    alone = "-m" if os.geteuid() == 0 else "-rm"
    command = ["unshare", alone, "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, DISK_FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip("Mounting a disk is not allowed: run the tests as root, or allow user namespaces")
    assert done.stdout.strip() == f"StoreUnavailable {tmp_path}/object: {told}.", done.stderr


def test_what_is_wrong_with_one_name_is_not_the_stores_fault(tmp_path):
    for uri in (str(tmp_path), str(tmp_path / ("x" * 300)), "nul\0byte"):
        with pytest.raises(StoreError) as told:
            store.read(uri)
        assert not isinstance(told.value, StoreUnavailable)


def test_file_addresses_may_be_percent_encoded_and_plain_paths_never_are(tmp_path):
    store.write(f"file://{tmp_path}/a%20b", b"1")
    store.write(f"{tmp_path}/a%20b", b"2")
    assert (tmp_path / "a b").read_bytes() == b"1" and (tmp_path / "a%20b").read_bytes() == b"2"


def test_an_unknown_scheme_is_named():
    with pytest.raises(StoreError, match="ftp://host/a"):
        store.read("ftp://host/a")


def test_arrow_reads_what_was_written(tmp_path):
    store.write(str(tmp_path / "x"), b"bytes")
    filesystem, path = store.arrow(str(tmp_path / "x"))
    assert filesystem.open_input_file(path).read() == b"bytes" == Path(path).read_bytes()
