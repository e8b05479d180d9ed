"""Files on a disk."""

import errno
import io
import os
import secrets
import shutil
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

from infra.errors import NotInStore, StoreError, StoreUnavailable
from infra.settings import key_of
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TEMPORARY = ".writing-"  # hidden: listings and pyarrow.dataset pass over what a killed writer left
CHUNK = 2**20

DISK_TROUBLE = {  # of the disk or this process, whatever the file
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # FAT, some network disks


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
        raise _refusal(path, error) from None


def _refusal(path: Path | str, error: OSError | ValueError) -> StoreError:
    kind = StoreUnavailable if getattr(error, "errno", None) in DISK_TROUBLE else StoreError
    key = key_of(str(path))
    hint = f" Set {key} to a place that can be used." if key else ""
    return kind(f"{path}: {_reason(error)}.{hint}")


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _unlisted(error: OSError) -> None:
    """A folder that is not there, or not any more, is empty; one that may not be read must not look so."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _refusal(error.filename, error) from None


def opened(uri: str) -> BinaryIO:
    """A file, to be read as a stream. Raises NotInStore and StoreError."""
    with _local_errors(local_path(uri)):
        return _opened(local_path(uri))


def _opened(path: Path) -> BinaryIO:
    if not modes.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, for ever
        raise StoreError(f"{path}: this is not a file.")
    return path.open("rb")


class LocalStore:
    """Files on a disk. The etag is size and time of last change."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        path = local_path(uri)
        with _local_errors(path), _opened(path) as file:
            return file.read(-1 if limit is None else limit)

    def write(self, uri: str, data: bytes) -> None:
        path = local_path(uri)
        with _local_errors(path), self._written(path, io.BytesIO(data)) as temporary:
            temporary.replace(path)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        path = local_path(uri)
        with _local_errors(path), self._written(path, io.BytesIO(data)) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._created(path, data)
            return True

    def _created(self, path: Path, data: bytes) -> bool:
        """`write_if_absent` without links: for a moment readers may see less than the whole."""
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        return True

    @contextmanager
    def _written(self, path: Path, data: BinaryIO) -> Iterator[Path]:
        """A complete, synced temporary file beside `path`; removed if it is still there afterwards."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("wb") as file:
                shutil.copyfileobj(data, file, CHUNK)
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

    def copy(self, source: str, target: str) -> None:
        with (
            opened(source) as data,
            _local_errors(local_path(target)),
            self._written(local_path(target), data) as temporary,
        ):
            temporary.replace(local_path(target))

    def delete(self, uri: str) -> None:
        path = local_path(uri)
        with _local_errors(path):
            path.unlink(missing_ok=True)

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(local_path(uri))
