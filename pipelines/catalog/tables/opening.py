"""What a file is that was given as a table: its first bytes decide, and its name only where they leave it open."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra import store
from infra.errors import CatalogError
from pipelines.catalog.tables import delimited, jsonlines, parquet
from pipelines.catalog.tables.cells import Block
from pipelines.catalog.tables.lines import Lines

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

HEAD = 2**16  # bytes that are looked at
PARQUET = (b"PAR1", b"PARE")
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"ARROW1": "an Arrow (Feather) file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "UTF-16 text, as of Excel's `Unicode text`",
    b"\xfe\xff": "UTF-16 text",
    b"%PDF-": "a PDF document",
}


def blocks_of(uri: str, names: Sequence[str], needed: Sequence[str]) -> Iterator[Block]:
    """The blocks of a table, as `tables.blocks` gives them; errors do not say where yet. Raises CatalogError."""
    filesystem, path = store.arrow(uri)
    with _readable("file"):
        head, packing = _head(filesystem, path)
    if head.startswith(PARQUET):
        if packing:
            raise CatalogError(f"this is a Parquet file inside {packing}; unpack it.")
        with _readable("Parquet table"):
            yield from parquet.blocks(filesystem.open_input_file(path), names, needed)
        return
    kind = _kind(head, uri)
    with _readable(f"{kind} table"), _lines(filesystem, path, packing) as lines:
        if kind == "JSON lines":
            yield from jsonlines.blocks(lines, names, needed)
        else:
            start = head.decode("utf-8-sig", "surrogateescape")
            yield from delimited.blocks(lines, start, names, needed, "\t" if kind == "TSV" else ",")


def _head(filesystem: "FileSystem", path: str) -> tuple[bytes, str | None]:
    with filesystem.open_input_stream(path, compression=None) as file:
        head = file.read(HEAD)
    packing = next((packing for magic, packing in PACKED.items() if head.startswith(magic)), None)
    if packing:
        with filesystem.open_input_stream(path, compression=packing) as file:
            head = file.read(HEAD)
    return head, packing


def _kind(head: bytes, uri: str) -> str:
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise CatalogError(f"this is {what}, which is not read as a table; save it as CSV in UTF-8, or as Parquet.")
    if not head:
        raise CatalogError("this file is empty: a table at least names its columns.")
    if uri.lower().endswith(".parquet") and not _looks_like_text(head):
        raise CatalogError("this is no Parquet file, though it is named like one: it does not begin as they do.")
    if not _looks_like_text(head):
        raise CatalogError("this is no text; save the table as CSV in UTF-8, or as Parquet.")
    named = re.search(r"\.(jsonl|ndjson|tsv)\b[^/]*$", uri.lower())
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or (named and named[1] != "tsv"):
        return "JSON lines"
    return "TSV" if named else "CSV"


def _looks_like_text(head: bytes) -> bool:
    return b"\0" not in head


@contextmanager
def _lines(filesystem: "FileSystem", path: str, packing: str | None) -> Iterator[Lines]:
    """Bytes that are not UTF-8 become lone surrogates: they are no trouble in columns that nobody reads."""
    with filesystem.open_input_stream(path, compression=packing, buffer_size=HEAD) as file:
        yield Lines(io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline=""))


@contextmanager
def _readable(what: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        hint = "" if getattr(error, "errno", None) else "; it may be damaged, or cut short"
        raise CatalogError(f"this {what} cannot be read ({reason}){hint}.") from None
