"""What a catalog holds: a folder or prefix, a glob, one image, or a table of URIs, as a list of inputs."""

import glob
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra import store
from infra.errors import CatalogError, UsageError
from pipelines import codec

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".parquet", ".csv")
# Images that we cannot decode are listed too: a photo that cannot be edited is reported, not passed over.
UNDECODABLE = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd")
TEXT_COLUMNS = ("uri", "relative_path")
IMAGES = {extension for extensions in codec.EXTENSIONS.values() for extension in extensions} | {*UNDECODABLE}


@dataclass(frozen=True)
class Input:
    """One image of the catalog; with an error, where it is known to fail before it is read."""

    uri: str
    relative_path: str
    etag: str
    error_code: str | None = None
    error: str | None = None

    def failing(self, code: str, sentence: str) -> "Input":
        """The same input as one that fails; without etag, so that it is tried again once mended."""
        return replace(self, etag="", error_code=code, error=sentence)


@dataclass
class Catalog:
    """The inputs in a stable order, the URIs of files that are no images, and what else was passed over.

    repeated  rows of a table that name a URI again
    blank     rows of a table that name none
    left_out  files that lie in the output folder
    """

    inputs: list[Input]
    ignored: list[str] = field(default_factory=list)
    repeated: int = 0
    blank: int = 0
    left_out: int = 0


def list_catalog(source: str, output: str) -> Catalog:
    """Everything to be edited. Raises CatalogError if there is nothing there, or it is inside `output`.

    What lies in `output` itself is left out. The same URI twice is one input.
    """
    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in TABLES and f"{canonical(source)}/".startswith(f"{canonical(output)}/"):
        raise CatalogError(f"{source}: the input lies inside the output folder; choose another --output.")
    if store.scheme_of(source) != "file":
        catalog = _table(source) if suffix in TABLES else _folder(source.rstrip("/"))
    else:
        try:
            catalog = _local(Path(source).expanduser(), suffix)
        except OSError as error:
            raise CatalogError(f"{source}: this cannot be listed ({(error.strerror or '').lower()}).") from None
    catalog = _without(catalog, canonical(output))
    catalog.inputs = [_checked(found) for found in catalog.inputs]
    if not catalog.inputs:
        raise CatalogError(f"{source}: there are no images in it.{_hint(catalog)}")
    return catalog


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
    if format is None or suffix in codec.EXTENSIONS[codec.OUTPUT_FORMATS[format]]:
        return relative_path
    return f"{relative_path}.{'jpg' if format == 'jpeg' else format}"


def mark_duplicates(inputs: Iterable[Input], format: str | None) -> list[Input]:
    """The inputs, where all but the first of those that would share one result fail and name it."""
    owners: dict[str, Input] = {}
    marked = []
    for found in inputs:
        owner = owners.setdefault(result_name(found.relative_path, format), found)
        if owner is not found and found.error is None:
            sentence = f"Its result would replace that of {owner.uri}; give it another relative_path."
            found = found.failing("duplicate_path", sentence)
        marked.append(found)
    return marked


def _local(path: Path, suffix: str) -> Catalog:
    if path.is_dir():
        return _folder(str(path.resolve()))
    if path.is_file():
        path = path.resolve()
        return _table(str(path)) if suffix in TABLES else _files(path.parent, [path])
    if glob.has_magic(str(path)):
        return _files(*_matches(path.absolute()))
    raise CatalogError(f"{path}: there is no such folder, table or image.")


def _matches(pattern: Path) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and what matches below it; hidden files are passed over."""
    fixed = list(takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    folder = Path(*fixed).resolve()
    found = folder.glob("/".join(pattern.parts[len(fixed) :]))
    hidden = re.compile(r"(^|/)\.")
    return folder, sorted(
        path for path in found if not path.is_dir() and not hidden.search(str(path.relative_to(folder)))
    )


def _folder(folder: str) -> Catalog:
    found = [(stored.uri, stored.etag) for stored in store.list_objects(folder)]
    return _images(folder, found)


def _files(folder: Path, paths: Iterable[Path]) -> Catalog:
    return _images(str(folder), [(str(path), _etag(str(path))) for path in paths])


def _images(folder: str, found: list[tuple[str, str]]) -> Catalog:
    catalog = Catalog([])
    for uri, etag in found:
        if PurePosixPath(uri).suffix.lower() in IMAGES:
            catalog.inputs.append(Input(uri, uri.removeprefix(folder).lstrip("/"), etag))
        else:
            catalog.ignored.append(uri)
    return catalog


def _table(uri: str) -> Catalog:
    rows = _table_rows(uri)
    folder = uri.rpartition("/")[0]
    inputs: dict[str, Input] = {}
    named = [(name, relative) for name, relative in rows if name]
    for name, relative in named:
        address = _address(name, folder)
        path = relative or re.sub(r"^[a-z][a-z0-9+.-]*://", "", name).lstrip("/")
        inputs.setdefault(address, Input(address, str(PurePosixPath(path)), _etag(address)))
    ordered = sorted(inputs.values(), key=lambda found: found.relative_path)
    return Catalog(ordered, repeated=len(named) - len(inputs), blank=len(rows) - len(named))


def _table_rows(uri: str) -> list[tuple[str | None, str | None]]:
    """(uri, relative_path) of every row, None or empty where a row has none."""
    columns = read_table(uri, TEXT_COLUMNS, needed=("uri",))
    return list(zip(columns["uri"], columns.get("relative_path") or [None] * len(columns["uri"]), strict=True))


def read_table(uri: str, names: Sequence[str], needed: Sequence[str]) -> dict[str, list[str | None]]:
    """Those of the named columns of text that a Parquet or CSV table has. Raises CatalogError, NotInStore."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    data = io.BytesIO(store.read(uri))
    as_text = csv.ConvertOptions(column_types={name: pa.string() for name in names})  # `001` is no number
    try:
        table = csv.read_csv(data, convert_options=as_text) if uri.lower().endswith(".csv") else pq.read_table(data)
        columns = {name: _text(table, name) for name in names if name in table.column_names}
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise CatalogError(f"{uri}: this table cannot be read ({reason}). A CSV file must be UTF-8.") from None
    missing = " and ".join(f"`{name}`" for name in needed if name not in columns)
    if missing:
        raise CatalogError(f"{uri}: the table needs a column {missing}; it has {', '.join(table.column_names)}.")
    return columns


def _text(table: "pa.Table", name: str) -> list[str | None]:
    import pyarrow as pa

    column = table[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"the column `{name}` holds {column.type}, not text")
    return column.to_pylist()


def _address(name: str, folder: str) -> str:
    if store.scheme_of(name) != "file":
        return name
    path = store.local_path(name)
    if not path.is_absolute() and "://" in folder:
        return store.join(folder, name)
    return os.path.normpath(Path(folder, path))


def _etag(uri: str) -> str:
    try:
        stored = store.stat(uri)
    except store.StoreError:
        return ""
    return stored.etag if stored else ""


def _without(catalog: Catalog, output: str) -> Catalog:
    """The catalog without what lies in the output folder, where results would be edited again."""
    kept = [found for found in catalog.inputs if not _lies_in(found.uri, output)]
    catalog.left_out = len(catalog.inputs) - len(kept)
    catalog.inputs = kept
    catalog.ignored = [uri for uri in catalog.ignored if not _lies_in(uri, output)]
    return catalog


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


def _hint(catalog: Catalog) -> str:
    if not catalog.ignored:
        return ""
    name = PurePosixPath(catalog.ignored[0]).name
    return f" {len(catalog.ignored)} other files are no images, e.g. {name}."
