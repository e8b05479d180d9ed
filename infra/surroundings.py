"""What Ray takes for granted of a machine, and what it is given instead where a machine lacks it.

A temporary folder with short names and some room, for its sockets and logs; a home folder, for the token that lets
nobody else in.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from infra.errors import UsageError
from infra.settings import expanded

FOLDER, TOKEN = "RAY_TMPDIR", "RAY_AUTH_TOKEN"
TOKEN_SETTINGS = ("RAY_AUTH_MODE", TOKEN, "RAY_AUTH_TOKEN_PATH")
LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # what an AF_UNIX address holds
ROOM, LEAST_ROOM = 256 * 2**20, 16 * 2**20  # bytes: as it should be, and as it must be, or Ray hangs over its logs
USUAL = ("/tmp", "/var/tmp", "/dev/shm")  # where the folder of the environment does not do


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give a Ray that is to be started in this process what it needs, by way of its own variables.

    Raises UsageError where there is nothing to give it.
    """
    usual = _usual(environment)
    if (folder := ray_folder(usual)) != usual:
        environment[FOLDER] = folder
    if not any(environment.get(key) for key in TOKEN_SETTINGS) and not _keeps_tokens():
        environment[TOKEN] = secrets.token_hex(32)


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


def _usual(environment: MutableMapping[str, str]) -> str:
    """Where Ray would go."""
    return environment.get(FOLDER) or environment.get("TMPDIR") or "/tmp"


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
