"""Ceph's S3 server as a test part: one monitor, one object daemon in memory, one gateway; they die with the tests."""

import os
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.s3 import environment

PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
PROGRAMS = (*PACKAGES, "ceph", "ceph-authtool", "monmaptool", "radosgw-admin", "setpriv")
PATIENCE = 30  # seconds until a daemon that has not answered is taken for broken
ATTEMPTS = 2  # another program may take a free port before the daemon does

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
keyring = {folder}/keyring
admin socket =
pid file =
log file = {folder}/$name.log
run dir = {folder}
crash dir = {folder}
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
paxos propose interval = 0.05
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
rgw thread pool size = 32
rgw enable usage log = false
rgw run sync thread = false
debug ms = 0
"""


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """A gateway with one user, for as long as the block lasts: the AWS environment to reach it with.

    Raises AssertionError, with the ends of the logs, if it does not start. Skips where the programs are
    missing and may not be installed, except on CI.
    """
    _installed()
    with ExitStack() as running:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                reached = running.enter_context(_started(folder / str(attempt)))
                break
            except AssertionError:
                if attempt == ATTEMPTS:
                    raise
        yield reached


def _installed() -> None:
    said = ""
    if _missing() and os.geteuid() == 0 and shutil.which("apt-get"):
        said = _install()
    if missing := _missing():
        reason = f"Ceph's S3 server needs {', '.join(missing)}: sudo apt-get install {' '.join(PACKAGES)}\n{said}"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason.strip())


def _missing() -> list[str]:
    return [program for program in PROGRAMS if not shutil.which(program)]


def _install() -> str:
    """The end of what apt-get said."""
    asked = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=asked, capture_output=True, check=False)
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
    done = subprocess.run(install, env=asked, capture_output=True, text=True, check=False)
    return done.stderr[-500:]


@contextmanager
def _started(folder: Path) -> Iterator[dict[str, str]]:
    for name in ("", "mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    fsid, osd, mon, gateway = str(uuid.uuid4()), str(uuid.uuid4()), _free_port(), _free_port()
    (folder / "ceph.conf").write_text(
        CONFIGURATION.format(fsid=fsid, folder=folder, mon=mon, gateway=gateway), encoding="utf-8"
    )
    _keys(folder)
    monmap = folder / "monmap"
    access, secret = secrets.token_hex(10).upper(), secrets.token_hex(20)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon}]", str(monmap))
        _run(folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap))
        daemons.append(_daemon(folder, "ceph-mon", "-i", "a"))
        _run(folder, "ceph", "--connect-timeout", str(PATIENCE), "osd", "new", osd, "0")
        _run(folder, "ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        daemons.append(_daemon(folder, "ceph-osd", "-i", "0"))
        user = ("user", "create", "--uid", "tests", "--display-name", "tests", "--access-key", access)
        _run(folder, "radosgw-admin", *user, "--secret-key", secret)
        daemons.append(_daemon(folder, "radosgw", "-n", "client.rgw"))
        _until(lambda: _answers(gateway), daemons, folder)
        yield environment(f"http://127.0.0.1:{gateway}", access, secret)
    finally:
        for daemon in reversed(daemons):
            daemon.kill()  # nothing here is kept
            daemon.wait()


def _keys(folder: Path) -> None:
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    _run(folder, "ceph-authtool", "--create-keyring", str(folder / "keyring"))
    for name in ("mon.", "client.admin", "client.rgw", "osd.0"):
        _run(folder, "ceph-authtool", str(folder / "keyring"), "--gen-key", "-n", name, *everything)


def _run(folder: Path, program: str, *arguments: str) -> None:
    command = [program, "-c", str(folder / "ceph.conf"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(command)} did not end.\n{_logs(folder)}") from None
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr.decode()}\n{_logs(folder)}"


def _daemon(folder: Path, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A daemon in the foreground that the kernel kills when this process ends, in whatever way."""
    command = ["setpriv", "--pdeathsig", "KILL", program, "-f", "-c", str(folder / "ceph.conf"), *arguments]
    with (folder / f"{program}.out").open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _until(true: Callable[[], bool], daemons: "list[subprocess.Popen[bytes]]", folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert all(daemon.poll() is None for daemon in daemons), f"A daemon ended.\n{_logs(folder)}"
        assert time.monotonic() < deadline, f"The S3 server does not answer.\n{_logs(folder)}"
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _logs(folder: Path) -> str:
    written = sorted(path for kind in ("*.log", "*.out") for path in folder.glob(kind))
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in written)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
