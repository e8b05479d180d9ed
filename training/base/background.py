"""Work that outlives the terminal that started it: one process at a time in a folder, told by its number there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.errors import EditTransferError, LeaseHeld

LOG, PID = "grow.log", "grow.pid"
GLANCE = 0.1  # seconds between two looks at whether it has begun


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others out of the folder while the block lasts, however it ends.

    Raises:
        LeaseHeld: another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / PID).open("a+") as file:
        if not _locked(file.fileno(), fcntl.LOCK_EX):
            raise LeaseHeld(f"Process {_told(folder)} is at work in {folder} already.")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def working_in(folder: Path) -> int | None:
    """The process that is at work in the folder, if there is one."""
    if not (folder / PID).exists():
        return None
    with (folder / PID).open() as file:
        return None if _locked(file.fileno(), fcntl.LOCK_SH) else _told(folder)


def start(command: Sequence[str], folder: Path) -> int:
    """Start a command that works alone in `folder`, in a session of its own and with its output in `folder`/grow.log;
    returns its process number as soon as it has begun.

    Raises:
        EditTransferError: it ended before, with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab") as log:
        said = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    while _told(folder) != process.pid:
        if process.poll() is not None:
            raise EditTransferError((folder / LOG).read_bytes()[said:].decode().strip().removeprefix("Error: "))
        time.sleep(GLANCE)
    return process.pid


def _locked(file: int, kind: int) -> bool:
    """Whether the lock could be had; it goes with the file, also when its process is killed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(folder: Path) -> int | None:
    path = folder / PID
    told = path.read_text() if path.exists() else ""
    return int(told) if told else None
