"""The manifest's rows of one job's catalog, asked with DuckDB: a report takes from here no more than it shows."""

import csv
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import store
from pipelines.catalog import manifest, parts
from pipelines.catalog.database import Database

FIRST_FAILURES = 100
FAILURE_COLUMNS = ("relative_path", "uri", "error_code", "error")
BARS, ROWS_FOR_A_BAR, FEWEST_BARS = 60, 10, 5
ROWS_AT_A_TIME = 1000

SHOWN = """
CREATE TEMP TABLE shown AS
SELECT uri, relative_path, status, error_code, error, result_uri, width, height, seconds, scores['change'] AS change,
       scores['kept'] AS kept, job_id, epoch(finished_at) AS finished, before, after
FROM newest JOIN (SELECT uri, before, after FROM listed) USING (uri)
"""
TOTALS = """
SELECT count(*) FILTER (status = 'done') AS done, count(*) FILTER (status = 'failed') AS failed,
       (SELECT count(*) FROM listed) AS listed,
       avg(change) FILTER (status = 'done') AS change, avg(seconds) FILTER (status = 'done') AS seconds,
       avg(kept) FILTER (status = 'done') AS kept,
       approx_quantile(change, 0.5) FILTER (status = 'done') AS median
FROM shown
"""
ALL = "SELECT * FROM shown WHERE status = 'done' ORDER BY relative_path"
WORST = """
SELECT * FROM shown WHERE status = 'done' AND change IS NOT NULL ORDER BY abs(change - ?) DESC, relative_path LIMIT ?
"""
OTHERS = """
SELECT * FROM (SELECT * FROM shown WHERE status = 'done' AND NOT list_contains(?, uri) ORDER BY md5(uri) LIMIT ?)
ORDER BY relative_path
"""
FAILURES = """
SELECT error_code, relative_path, error
FROM (SELECT *, row_number() OVER (PARTITION BY error_code ORDER BY relative_path) AS n
      FROM shown WHERE status = 'failed')
ORDER BY n, error_code, relative_path LIMIT ?
"""
CODES = """
SELECT error_code, count(*) AS images FROM shown WHERE status = 'failed' GROUP BY ALL ORDER BY images DESC, error_code
"""
SPAN = "SELECT count(*) AS images, min(finished) AS first, max(finished) AS last FROM shown WHERE job_id = ?"
BINS = """
SELECT least(floor((finished - ?) / ?), ?)::INT AS bin, count(*) AS images
FROM shown WHERE job_id = ? GROUP BY bin
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Totals:
    """Counts of images; means over the edited ones, None where there are none. Times are in seconds.

    change, median  mean, and about the median, of scores['change']
    kept            mean of scores['kept'], of those that were restored to full resolution
    """

    done: int
    failed: int
    listed: int
    change: float | None
    seconds: float | None
    kept: float | None
    median: float | None


@dataclass(frozen=True)
class Group:
    """Failures of one code: how many there are, and the first of them."""

    code: str
    images: int
    first: list[Row]


@dataclass(frozen=True)
class Throughput:
    """Images that were finished, in bins of equal width in seconds."""

    width: float
    images: list[int]


class Figures:
    """Answers about the newest rows of what was listed. Memory is bounded, whatever the number of rows."""

    def __init__(self, connection: Database) -> None:
        self.connection = connection
        connection.execute(SHOWN)

    def totals(self) -> Totals:
        """The numbers of the whole catalog."""
        return Totals(**self._ask(TOTALS)[0])

    def all(self) -> list[Row]:
        """Every edited image, by path; for small catalogs."""
        return self._ask(ALL)

    def worst(self, median: float | None, number: int) -> list[Row]:
        """Edited images whose change is furthest from the median, worst first."""
        return [] if median is None else self._ask(WORST, median, number)

    def others(self, but: list[Row], number: int) -> list[Row]:
        """A random sample of the other edited images, by path; the same every time."""
        return self._ask(OTHERS, [row["uri"] for row in but], number)

    def failures(self) -> list[Group]:
        """The failures by code, the most frequent first, with the first hundred of them: some of every code."""
        first = self._ask(FAILURES, FIRST_FAILURES)
        return [
            Group(code, images, [row for row in first if row["error_code"] == code])
            for code, images in (row.values() for row in self._ask(CODES))
        ]

    def throughput(self, job_id: str) -> Throughput | None:
        """What one job finished when, None where that is too little to be drawn."""
        span = self._ask(SPAN, job_id)[0]
        number = min(BARS, span["images"] // ROWS_FOR_A_BAR)
        if number < FEWEST_BARS or span["last"] <= span["first"]:
            return None
        width = (span["last"] - span["first"]) / number
        found = {row["bin"]: row["images"] for row in self._ask(BINS, span["first"], width, number - 1, job_id)}
        return Throughput(width, [found.get(index, 0) for index in range(number)])

    def write_failures(self, uri: str) -> None:
        """All failures as a CSV table, in order of path. Raises StoreError."""
        rows = self.connection.sql(
            f"SELECT {', '.join(FAILURE_COLUMNS)} FROM shown WHERE status = 'failed' ORDER BY relative_path"
        )
        with tempfile.TemporaryDirectory(prefix="edit-transfer-") as folder:
            path = Path(folder, "failures.csv")
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(FAILURE_COLUMNS)
                for batch in rows.to_arrow_reader(ROWS_AT_A_TIME):
                    writer.writerows(row.values() for row in batch.to_pylist())
            store.copy(str(path), uri)

    def _ask(self, question: str, *values: Any) -> list[Row]:
        answer = self.connection.execute(question, values)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@contextmanager
def opened(folder: str, listed: str) -> Iterator[Figures]:
    """Figures of a manifest's rows, of what the catalog table in `listed` names. Raises StoreError."""
    with manifest.opened(folder, manifest.parts(folder)) as connection:
        connection.register("listed", parts.dataset(listed))
        yield Figures(connection)
