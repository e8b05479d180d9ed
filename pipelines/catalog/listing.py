"""What a catalog holds: a folder or prefix, a glob, one image, or a table of URIs, as a stream of inputs."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from infra import store
from infra.errors import CatalogError, UsageError
from pipelines import codec
from pipelines.catalog import tables
from pipelines.catalog.passed import Passed
from pipelines.catalog.tables import FAULT, TABLES_ARE, is_table

# Images that we cannot decode are listed too: a photo that cannot be edited is reported, not passed over.
UNDECODABLE = (".jxl", ".jp2", ".psd")
IMAGES = {extension for extensions in codec.EXTENSIONS.values() for extension in extensions} | {*UNDECODABLE}


@dataclass(frozen=True)
class Own:
    """What a row of a table wants otherwise than the rest of the job; None as the rest.

    before, after  URIs of its own pair, both or none
    adapter        a registry ref, `NAME@3` or `NAME:0.7`
    seed           the number from which its own seed is derived
    prompt         URI of precomputed prompt embeddings (.safetensors)
    """

    before: str | None = None
    after: str | None = None
    adapter: str | None = None
    seed: str | None = None
    prompt: str | None = None


AS_THE_REST = Own()
OWN_COLUMNS = tuple(each.name for each in fields(Own))
PLACES = ("uri", "before", "after", "prompt")  # columns that hold addresses, relative to their table's


@dataclass(frozen=True)
class Input:
    """One image of the catalog; with an error, where it is known to fail before it is read.

    etag is None where nobody has looked yet, and empty where there is nothing to see; size is in bytes.
    """

    uri: str
    relative_path: str
    etag: str | None
    size: int | None = None
    error_code: str | None = None
    error: str | None = None
    own: Own = AS_THE_REST

    def failing(self, code: str, sentence: str) -> "Input":
        """The same input as one that fails; without etag, so that it is tried again once mended."""
        return replace(self, etag="", error_code=code, error=sentence)


@dataclass
class Catalog:
    """The inputs, in a stable order, listed while they are iterated; `passed` is complete afterwards.

    Iterating raises CatalogError where there are no images, or the listing cannot go on.
    """

    source: str
    found: Iterator[Input]
    passed: Passed = field(default_factory=Passed)

    def __iter__(self) -> Iterator[Input]:
        empty = True
        try:
            for each in self.found:
                empty = False
                yield each
        except OSError as error:
            raise CatalogError(f"{self.source}: this cannot be listed ({(error.strerror or '').lower()}).") from None
        if empty:
            raise CatalogError(f"{self.source}: {self._nothing()}")

    def _nothing(self) -> str:
        if not self.passed.kinds and _is_other_file(self.source):
            return f"this is neither an image nor a table. {TABLES_ARE}"
        return f"there are no images in it.{self.passed.hint()}"


def list_catalog(source: str, output: str, format: str | None = None) -> Catalog:
    """Everything to be edited. Raises CatalogError if there is nothing there, or it is inside `output`.

    What lies in `output` itself is left out. The same URI twice is one input; of those that would share one result
    in this output format, all but the first fail and name it.
    """
    if not is_table(source) and f"{canonical(source)}/".startswith(f"{canonical(output)}/"):
        raise CatalogError(f"{source}: the input lies inside the output folder; choose another --output.")
    listing = _Listing(canonical(output), format, Passed())
    if store.scheme_of(source) != "file":
        found = listing.table(source) if is_table(source) else listing.folder(source.rstrip("/"))
    else:
        try:
            found = listing.local(Path(source).expanduser())
        except OSError as error:
            raise CatalogError(f"{source}: this cannot be listed ({(error.strerror or '').lower()}).") from None
    return Catalog(source, map(_checked, found), listing.passed)


def canonical(uri: str) -> str:
    """One spelling per place: an absolute path for local ones, no slash at the end. Raises UsageError."""
    if store.scheme_of(uri) != "file":
        return uri.rstrip("/")
    try:
        return str(store.local_path(uri).expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown ~user
        raise UsageError(f"{uri}: this is not a usable path ({error}).") from None


def result_name(relative_path: str, format: str | None) -> str:
    """Where a result goes below `images/`. A new format is appended, so that no two names become one."""
    suffix = PurePosixPath(relative_path).suffix.lower()
    format = result_format(relative_path, format)
    if format is None or suffix in codec.EXTENSIONS[codec.OUTPUT_FORMATS[format]]:
        return relative_path
    return f"{relative_path}.{'jpg' if format == 'jpeg' else format}"


def result_format(relative_path: str, format: str | None) -> str | None:
    """The format of a result that has such a name: as asked for, else another where its own is read only."""
    suffix = PurePosixPath(relative_path).suffix.lower()
    read_only = (other for name, other in codec.WRITTEN_AS.items() if suffix in codec.EXTENSIONS[name])
    return format or next(read_only, None)


@dataclass(frozen=True)
class _Listing:
    """How things are listed for one job; every method streams."""

    output: str
    format: str | None
    passed: Passed

    def local(self, path: Path) -> Iterator[Input]:
        if path.is_dir():
            return self.folder(str(path.resolve()))
        if path.is_file():
            named, path = path, path.resolve()
            return self.table(str(path)) if is_table(named.name) else self.files(path.parent, [path])
        if glob.has_magic(str(path)):
            return self.files(*_matches(path.absolute()))
        raise CatalogError(f"{path}: there is no such folder, table or image.")

    def folder(self, folder: str) -> Iterator[Input]:
        def exists(relative_path: str) -> bool:
            return store.stat(store.join(folder, relative_path)) is not None

        return self.images(folder, store.list_objects(folder), exists)

    def files(self, folder: Path, paths: list[Path]) -> Iterator[Input]:
        names = {str(path.relative_to(folder)) for path in paths}
        return self.images(str(folder), (_looked_at(str(path)) for path in paths), names.__contains__)

    def images(self, folder: str, found: Iterable[store.Stored], exists: Callable[[str], bool]) -> Iterator[Input]:
        for stored in found:
            is_image = PurePosixPath(stored.uri).suffix.lower() in IMAGES
            if self._left_out(stored.uri, is_image):
                continue
            if not is_image:
                self.passed.ignore(stored.uri)
                continue
            relative_path = stored.uri.removeprefix(folder).lstrip("/")
            image = Input(stored.uri, relative_path, stored.etag, stored.size)
            rival = _rival(relative_path, self.format)
            yield _duplicate(image, store.join(folder, rival)) if rival and exists(rival) else image

    def _left_out(self, uri: str, is_image: bool = True) -> bool:
        """Whether it lies in the output folder, where results would be edited again."""
        inside = _lies_in(uri, self.output)
        self.passed.left_out += inside and is_image
        return inside

    def table(self, uri: str) -> Iterator[Input]:
        import pyarrow as pa

        schema = pa.schema([(name, pa.string()) for name in ("uri", "relative_path", "result", FAULT, *OWN_COLUMNS)])
        for row in tables.one_each(self._named(uri), schema):
            self.passed.repeated -= 1
            if self._left_out(row["uri"]):
                continue
            if row[FAULT]:  # what it asks for may stand in the wrong columns
                yield Input(row["uri"], row["relative_path"], None).failing("bad_row", row[FAULT])
                continue
            own = Own(**{name: row[name] for name in OWN_COLUMNS})
            image = Input(row["uri"], row["relative_path"], None, own=own)
            if store.scheme_of(image.uri) == "file":
                found = _looked_at(image.uri)
                image = replace(image, etag=found.etag, size=found.size)
            yield image if row["owner"] == row["uri"] else _duplicate(image, row["owner"])

    def _named(self, uri: str) -> Iterator[dict[str, Any]]:
        """The rows that name an image, with its address; each counts as repeated until it is chosen."""
        folder = uri.rpartition("/")[0]
        for block in tables.blocks(uri, ("uri", "relative_path", *OWN_COLUMNS), needed=("uri",)):
            for values in zip(*block.values(), strict=True):
                row = {name: _cell(value) for name, value in zip(block, values, strict=True)}
                if row["uri"] is None:
                    self.passed.blank += 1
                    continue
                self.passed.repeated += 1
                path = row.get("relative_path") or re.sub(r"^[a-z][a-z0-9+.-]*://", "", row["uri"]).lstrip("/")
                relative_path = str(PurePosixPath(path))
                places = {name: _address(row[name] or "", folder) for name in PLACES if row.get(name)}
                yield row | places | {"relative_path": relative_path, "result": result_name(relative_path, self.format)}


def _cell(value: str | None) -> str | None:
    """None for a blank one; what no path may hold is made visible."""
    return value.replace("\0", "\\0") if value and value.strip() else None


def _matches(pattern: Path) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and what matches below it; hidden files are passed over."""
    fixed = list(takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    folder = Path(*fixed).resolve()
    found = folder.glob("/".join(pattern.parts[len(fixed) :]))
    hidden = re.compile(r"(^|/)\.")
    return folder, sorted(
        path for path in found if not path.is_dir() and not hidden.search(str(path.relative_to(folder)))
    )


def _is_other_file(source: str) -> bool:
    """Whether it is one file, and neither an image nor a table by its name."""
    if is_table(source) or PurePosixPath(source).suffix.lower() in IMAGES:
        return False
    if store.scheme_of(source) == "file":
        return Path(canonical(source)).is_file()
    is_key = canonical(source).count("/") > 2  # and not a bucket
    return is_key and store.stat(canonical(source)) is not None


def _looked_at(uri: str) -> store.Stored:
    try:
        return store.stat(uri) or store.Stored(uri, 0, "")
    except store.StoreError:
        return store.Stored(uri, 0, "")


def _rival(relative_path: str, format: str | None) -> str | None:
    """`mug.jpg` for `mug.jpg.png`, where the results are PNG: the only two names that can share a result."""
    rival = str(PurePosixPath(relative_path).with_suffix(""))
    is_image = PurePosixPath(rival).suffix.lower() in IMAGES
    return rival if is_image and rival != relative_path and result_name(rival, format) == relative_path else None


def _duplicate(image: Input, owner: str) -> Input:
    return image.failing("duplicate_path", f"Its result would replace that of {owner}; give it another relative_path.")


def _address(name: str, folder: str) -> str:
    if store.scheme_of(name) != "file":
        return name
    path = store.local_path(name)
    if not path.is_absolute() and "://" in folder:
        return store.join(folder, name)
    return os.path.normpath(Path(folder, path))


def _lies_in(uri: str, output: str) -> bool:
    """Whether it is there by any name: a link to a result is a result."""
    real = os.path.realpath(uri) if store.scheme_of(uri) == "file" else uri
    return real.startswith(f"{output}/")


def _checked(found: Input) -> Input:
    parts = PurePosixPath(found.relative_path).parts
    if not parts or ".." in parts or parts[0] == "/":
        return found.failing("bad_path", "Its path leads upwards, out of the output folder; give it a relative_path.")
    try:
        found.uri.encode()
        found.relative_path.encode()
    except UnicodeEncodeError:
        readable = Input(_printable(found.uri), _printable(found.relative_path), "")
        return readable.failing("bad_path", "Its name is not valid UTF-8; rename the file.")
    return found


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
