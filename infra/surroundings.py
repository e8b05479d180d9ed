"""What Ray takes for granted of a machine, and what it is given instead where a machine lacks it.

A temporary folder with a short name and some room, for its sockets and logs; shared memory for what processes hand on;
a home folder, for the token that lets nobody else in; a network that reaches this machine itself.
"""

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.settings import expanded

FOLDER, MODE, TOKEN, TOKEN_PATH = "RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # what an AF_UNIX address holds
ROOM, LEAST_ROOM = 256 * 2**20, 16 * 2**20  # bytes: as it should be, and as it must be, or Ray hangs over its logs
SHARED_MEMORY = "/dev/shm"
STORE_BYTES = 2 * 2**30  # at most, of objects on a disk where there is no shared memory
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
USUAL = ("/tmp", "/var/tmp", SHARED_MEMORY)  # where the folder of the environment does not do


def settled(environment: MutableMapping[str, str] = os.environ) -> dict[str, Any]:
    """What a Ray that is to be started in this process needs here: set in its own variables, and for `ray.init`.

    Raises UsageError where there is nothing to give it.
    """
    check_loopback()
    usual = environment.get(FOLDER) or environment.get("TMPDIR") or "/tmp"  # as Ray does
    if (folder := ray_folder(usual)) != usual:
        environment[FOLDER] = folder
    asks = environment.get(MODE, "token") == "token" and not (environment.get(TOKEN) or environment.get(TOKEN_PATH))
    if asks and not _keeps_tokens():
        environment[TOKEN] = secrets.token_hex(32)
    return object_store(folder)


def object_store(folder: str, shared_memory: str = SHARED_MEMORY) -> dict[str, Any]:
    """Where Ray keeps objects, where it cannot find out itself: it takes shared memory for granted on Linux."""
    if not sys.platform.startswith("linux") or Path(shared_memory).is_dir():
        return {}
    return {"_plasma_directory": folder, "object_store_memory": min(STORE_BYTES, _free(folder) // 2)}


def check_loopback(hosts: Sequence[tuple[socket.AddressFamily, str]] = LOOPBACK) -> None:
    """Raises UsageError if this machine does not reach itself: Ray would wait for its own parts for minutes."""
    for family, host in hosts:
        with suppress(OSError), socket.create_server((host, 0), family=family) as listening:
            socket.create_connection(listening.getsockname()[:2], timeout=5).close()
            return
    raise UsageError("This machine does not reach itself over the network, as Ray has to: `ip link set lo up` as root.")


def ray_folder(usual: str, others: tuple[str, ...] = USUAL) -> str:
    """The temporary folder for Ray: the usual one if it can be used, else the first of the others that can.

    Raises UsageError, telling why, if none can.
    """
    refusals, narrow = dict[str, str](), None
    for folder in dict.fromkeys([usual, *_with_own(others)]):
        if refusal := _refusal(folder):
            refusals[folder] = refusal
        elif _free(folder) >= ROOM:
            return folder
        else:
            narrow = narrow or folder
    if narrow is None:
        told = "; ".join(f"{folder} {refusal}" for folder, refusal in refusals.items())
        raise UsageError(f"Ray needs a folder for its sockets and logs, and none will do: {told}. Set {FOLDER}.")
    return narrow


def _with_own(folders: tuple[str, ...]) -> Iterator[str]:
    """Each of them, and one of this user's in it: in the other somebody else's Ray may keep us out."""
    for folder in folders:
        yield folder
        yield f"{folder}/ray-{os.getuid()}"


def _refusal(folder: str) -> str | None:
    """Why Ray cannot work in a folder; None if it can."""
    spare = SOCKET_BYTES - len(os.fsencode(f"{folder.rstrip('/')}/{LONGEST_SOCKET}"))
    if spare < 0:
        return f"has a name that is {-spare} bytes too long"
    if not Path(folder).is_absolute():
        return "is no absolute path"
    try:
        _try_out(Path(folder, "ray"))
    except OSError as error:
        return f"cannot be written ({(error.strerror or str(error)).lower()})"
    return None if _free(folder) >= LEAST_ROOM else "is full"


def _try_out(folder: Path) -> None:
    """Write into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))


def _free(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _keeps_tokens() -> bool:
    """Whether Ray finds its token in the home folder, or can leave one there."""
    folder = Path(expanded("~/.ray"))
    if (folder / "auth_token").is_file():
        return os.access(folder / "auth_token", os.R_OK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
