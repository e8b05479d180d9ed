"""What Ray is given where a machine lacks what it takes for granted."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import surroundings
from infra.errors import UsageError
from infra.settings import from_environment

LONG = "a-folder-with-a-rather-long-name-as-build-servers-like-them/" * 3


@pytest.fixture
def unusable(tmp_path) -> str:
    """A folder that nobody can make, not even root: its parent is a file."""
    (tmp_path / "file").touch()
    return str(tmp_path / "file" / "tmp")


@pytest.fixture
def short(tmp_path_factory) -> str:
    """A folder whose name leaves room for sockets."""
    folder = Path(f"/tmp/et-{os.getpid()}")
    folder.mkdir()
    yield str(folder)
    shutil.rmtree(folder)


def test_a_usual_folder_is_left_alone_and_made_if_need_be(short):
    assert surroundings.ray_folder(f"{short}/new", ()) == f"{short}/new"
    assert Path(short, "new").is_dir()


@pytest.mark.parametrize(
    ("usual", "why"),
    [
        ("/tmp/" + LONG, "bytes too long"),
        ("/tmp/" + "ä" * 20, "bytes too long"),  # bytes count, not letters
        ("tmp", "no absolute path"),
        ("/proc/nothing", "cannot be written"),
        ("/dev/null", "cannot be written (not a directory)"),
        ("/dev/full/x", "cannot be written"),
    ],
)
def test_one_that_will_not_do_gives_way_to_the_next_or_says_why(usual, why, short):
    assert surroundings.ray_folder(usual, ("/proc/neither", short)) == short
    with pytest.raises(UsageError, match="Set RAY_TMPDIR") as told:
        surroundings.ray_folder(usual, ("/proc/neither",))
    assert f"{usual} " in str(told.value) and why in str(told.value) and "/proc/neither cannot" in str(told.value)


def test_what_another_user_has_taken_is_passed_by(short):
    Path(short, "ray").touch()  # as good as a folder that we may not write to
    assert surroundings.ray_folder("/proc/nothing", (short,)) == f"{short}/ray-{os.getuid()}"


def test_the_longest_name_that_is_taken_holds_the_sockets_of_ray(short):
    """What counts is what the system takes, not what we believe that it does."""
    room = surroundings.SOCKET_BYTES - len(f"{short}//{surroundings.LONGEST_SOCKET}")
    longest = f"{short}/{'x' * room}"
    assert surroundings.ray_folder(longest, ()) == longest
    Path(longest, surroundings.LONGEST_SOCKET).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{longest}/{surroundings.LONGEST_SOCKET}")
    with pytest.raises(UsageError, match="1 bytes too long"):
        surroundings.ray_folder(f"{longest}x", ())


def test_a_session_of_ray_is_named_no_longer_than_expected(ray_cluster):
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert len(f"ray/{session.name}/sockets/plasma_store") <= len(surroundings.LONGEST_SOCKET)


def test_a_home_that_cannot_be_written_needs_no_token_there(unusable, short, monkeypatch):
    monkeypatch.setenv("HOME", unusable)
    first, second = {"TMPDIR": short}, {"TMPDIR": short, "RAY_AUTH_MODE": "token"}
    assert surroundings.settled(first) == surroundings.settled(second) == {}
    assert len(first["RAY_AUTH_TOKEN"]) == 64 and first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert first["TMPDIR"] == short and "RAY_TMPDIR" not in first


@pytest.mark.parametrize(
    "told",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "a"}, {"RAY_AUTH_TOKEN_PATH": "/a", "RAY_AUTH_MODE": "token"}],
)
def test_what_the_environment_says_of_tokens_stays(unusable, short, monkeypatch, told):
    monkeypatch.setenv("HOME", unusable)
    environment = {"TMPDIR": short} | told
    surroundings.settled(environment)
    assert environment == {"TMPDIR": short} | told


def test_a_home_that_can_be_written_keeps_the_token(short, monkeypatch):
    monkeypatch.setenv("HOME", f"{short}/home")
    environment = {"TMPDIR": short}
    surroundings.settled(environment)
    assert environment == {"TMPDIR": short}
    Path(short, "home/.ray/auth_token").write_text("a token")
    surroundings.settled(environment)
    assert environment == {"TMPDIR": short}


def test_a_folder_of_rays_own_choice_wins_over_the_usual_one(short, unusable):
    environment = {"RAY_TMPDIR": unusable, "TMPDIR": short, "RAY_AUTH_MODE": "disabled"}
    surroundings.settled(environment)
    assert environment["RAY_TMPDIR"] not in (unusable, short) and Path(environment["RAY_TMPDIR"]).is_dir()


def test_without_shared_memory_objects_go_to_the_disk(short, tmp_path):
    assert surroundings.object_store(short, str(tmp_path)) == {}
    if sys.platform.startswith("linux"):
        told = surroundings.object_store(short, f"{tmp_path}/none")
        assert told["_plasma_directory"] == short and 0 < told["object_store_memory"] <= surroundings.STORE_BYTES


def test_who_has_no_home_is_at_home_in_the_root_folder(monkeypatch):
    def nobody_known(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody_known)
    told = from_environment({})
    assert (told.registry, told.cache) == ("/.edit-transfer/registry", "/.cache/edit-transfer")


def test_a_machine_that_does_not_reach_itself_is_told(short):
    nobodys = (socket.AF_INET, "192.0.2.1")  # an address for documentation
    with pytest.raises(UsageError, match="does not reach itself"):
        surroundings.check_loopback((nobodys,))
    surroundings.check_loopback((nobodys, *surroundings.LOOPBACK))


@pytest.mark.slow
def test_a_job_runs_with_a_long_temporary_folder_and_without_a_home(scene, pair, tiny_base, tmp_path, unusable):
    (tmp_path / "photos").mkdir()
    scene(1).save(tmp_path / "photos/a.png")
    long = tmp_path / LONG
    long.mkdir(parents=True)
    places = ["--input", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--base", str(tiny_base)]
    command = ["apply", "--pair", *pair, *places, "--steps", "2", "--workers", "1", "--json"]
    there = os.environ | {"TMPDIR": str(long), "HOME": unusable}
    done = subprocess.run(
        [sys.executable, "-c", "from infra.cli import main; main()", *command],
        capture_output=True,
        text=True,
        env=there,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["done"] == 1, done.stderr
