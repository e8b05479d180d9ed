"""Images of a catalog with the same content, found without reading more of them than is needed.

In a bucket, the etag and the size say what is in an object. Of files on a disk only those are read that share their
size with another, whole only those whose beginning is the same too. DuckDB holds the catalog, on disk where need be.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from infra import store
from infra.errors import StoreError
from pipelines.catalog import database
from pipelines.catalog.database import Database
from pipelines.catalog.listing import Input

GROUPS_NAMED, NAMES = 5, 3
BEGINNING = 64 * 1024  # bytes
ROWS_AT_A_TIME = 1000
FILES_AT_ONCE = 8

# `local` files have no content yet; what has none in the end is not compared
TABLES = """
CREATE TABLE seen (uri TEXT, path TEXT, size BIGINT, content TEXT, local BOOL);
CREATE TABLE beginnings (uri TEXT, path TEXT, size BIGINT, content TEXT);
CREATE TABLE contents (uri TEXT, path TEXT, size BIGINT, content TEXT);
"""
SAME_SIZE = """
SELECT uri, path, size FROM seen WHERE local AND size IN (
    SELECT size FROM seen WHERE local GROUP BY size HAVING count(*) > 1)
"""
SAME_BEGINNING = """
SELECT uri, path, size FROM beginnings SEMI JOIN (
    SELECT size, content FROM beginnings GROUP BY ALL HAVING count(*) > 1) USING (size, content)
WHERE size > ?
"""
SMALL = "INSERT INTO contents SELECT * FROM beginnings WHERE size <= ?"
REMOTE = "INSERT INTO contents SELECT uri, path, size, content FROM seen WHERE NOT local AND content <> ''"
GROUPS = """
CREATE TABLE groups AS
SELECT size, content, count(*) AS images, min(path) AS first FROM contents GROUP BY size, content HAVING count(*) > 1
"""
TOTALS = "SELECT coalesce(sum(images - 1), 0)::BIGINT, coalesce(sum((images - 1) * size), 0)::BIGINT FROM groups"
LARGEST = "SELECT size, content, images FROM groups ORDER BY images DESC, first LIMIT ?"
NAMED = "SELECT path FROM contents WHERE size = ? AND content = ? ORDER BY path LIMIT ?"
COMPARED = "SELECT count(*) FROM seen WHERE local OR content <> ''"


@dataclass(frozen=True)
class Duplicates:
    """Copies that are superfluous: all but one of every group of images with the same content.

    compared  images of which enough is known: not those in a bucket that only a table names
    groups    the largest, by size: number of images in it, and the first of their names
    """

    compared: int
    copies: int
    bytes: int
    groups: list[tuple[int, list[str]]]


class Seen:
    """Everything that was listed. Give every input to `add`, then ask for `duplicates`."""

    def __init__(self, connection: Database) -> None:
        self.connection = connection
        self.waiting: list[dict[str, Any]] = []
        connection.execute(TABLES)

    def add(self, found: Input) -> None:
        """Another input. Empty ones and those that are known to fail are no copies of anything."""
        if found.error is not None or not found.size:
            return
        local = store.scheme_of(found.uri) == "file"
        row = {"uri": found.uri, "path": found.relative_path, "size": found.size}
        self.waiting.append(row | {"content": "" if local else found.etag, "local": local})
        if len(self.waiting) == ROWS_AT_A_TIME:
            self._flush()

    def duplicates(self) -> Duplicates:
        """What of it is there more than once. Files that cannot be read are left out."""
        self._flush()
        ask = self._ask
        self._digest(SAME_SIZE, [], "beginnings", BEGINNING)
        ask(SMALL, BEGINNING)
        self._digest(SAME_BEGINNING, [BEGINNING], "contents", None)
        ask(REMOTE)
        ask(GROUPS)
        copies, size = ask(TOTALS)[0]
        groups = [
            (images, [path for (path,) in ask(NAMED, bytes_each, content, NAMES)])
            for bytes_each, content, images in ask(LARGEST, GROUPS_NAMED)
        ]
        return Duplicates(ask(COMPARED)[0][0], copies, size, groups)

    def _flush(self) -> None:
        if self.waiting:
            _insert(self.connection, "seen", self.waiting)
            self.waiting = []

    def _ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(question, values).fetchall()

    def _digest(self, question: str, values: Sequence[Any], table: str, limit: int | None) -> None:
        """Put the files that a question names into a table, with the digest of their first `limit` bytes, or all."""
        with self.connection.cursor() as writing, ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            for batch in self.connection.sql(question, params=values).to_arrow_reader(ROWS_AT_A_TIME):
                rows = batch.to_pylist()
                digests = pool.map(lambda row: _sha256(row["uri"], limit), rows)
                read = [row | {"content": digest} for row, digest in zip(rows, digests, strict=True) if digest]
                if read:
                    _insert(writing, table, read)


def _insert(connection: Database, table: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    connection.register("added", pa.Table.from_pylist(rows))
    connection.execute(f"INSERT INTO {table} SELECT * FROM added")
    connection.unregister("added")


def _sha256(uri: str, limit: int | None) -> str | None:
    try:
        if limit is not None:
            return hashlib.sha256(store.read(uri, limit)).hexdigest()
        with store.local_path(uri).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (StoreError, OSError):
        return None


@contextmanager
def opened() -> Iterator[Seen]:
    """Nothing seen yet."""
    with database.opened() as connection:
        yield Seen(connection)


def passing(inputs: Iterable[Input], seen: Seen) -> Iterator[Input]:
    """The same inputs; on their way they are seen."""
    for found in inputs:
        seen.add(found)
        yield found
