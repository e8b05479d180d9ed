"""Files on a disk."""

import os
import secrets
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from infra.errors import NotInStore, StoreError
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TEMPORARY = ".writing-"  # hidden: listings and pyarrow.dataset pass over what a killed writer left


def local_path(uri: str) -> Path:
    """The path behind a local URI: `file://` addresses may be percent-encoded, plain paths never are."""
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotInStore(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {_reason(error)}.") from None


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _unlisted(error: OSError) -> None:
    """A folder that is not there, or not any more, is empty; one that may not be read must not look so."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise StoreError(f"{error.filename}: {_reason(error)}.") from None


class LocalStore:
    """Files on a disk. The etag is size and time of last change."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        path = local_path(uri)
        with _local_errors(path):
            if not modes.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, for ever
                raise StoreError(f"{path}: this is not a file.")
            with path.open("rb") as file:
                return file.read(limit)

    def write(self, uri: str, data: bytes) -> None:
        path = local_path(uri)
        with _local_errors(path), self._written(path, data) as temporary:
            temporary.replace(path)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        path = local_path(uri)
        with _local_errors(path), self._written(path, data) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            return True

    @contextmanager
    def _written(self, path: Path, data: bytes) -> Iterator[Path]:
        """A complete, synced temporary file beside `path`; removed if it is still there afterwards."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def stat(self, uri: str) -> Stored | None:
        path = local_path(uri)
        with _local_errors(path):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Stored(str(path), found.st_size, f"{found.st_size}-{found.st_mtime_ns}")

    def list_objects(self, prefix: str) -> Iterator[Stored]:
        for folder, folders, names in os.walk(local_path(prefix), onerror=_unlisted):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = str(Path(folder, name))
                if not name.startswith("."):
                    yield self._listed(path)

    def _listed(self, path: str) -> Stored:
        """What cannot be looked at, such as a link to itself, is listed too: reading it will say why."""
        try:
            return self.stat(path) or Stored(path, 0, "")
        except StoreError:
            return Stored(path, 0, "")

    def leftovers(self, prefix: str) -> Iterator[tuple[Stored, datetime]]:
        for folder, _, names in os.walk(local_path(prefix), onerror=_unlisted):
            for path in (Path(folder, name) for name in names if name.startswith(TEMPORARY)):
                with suppress(FileNotFoundError):  # its writer has just finished
                    found = path.stat()
                    written = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield Stored(str(path), found.st_size, f"{found.st_size}-{found.st_mtime_ns}"), written

    def delete(self, uri: str) -> None:
        path = local_path(uri)
        with _local_errors(path):
            path.unlink(missing_ok=True)

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(local_path(uri))
