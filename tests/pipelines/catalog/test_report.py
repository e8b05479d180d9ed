"""The report and the table of failures, made of manifests whose images nobody ever edited."""

import csv
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import store
from pipelines.catalog import database, figures, manifest, parts, report
from pipelines.catalog.chart import HEIGHT, WIDTH, chart
from pipelines.catalog.figures import Throughput
from pipelines.catalog.listing import Catalog, Input, Own, Passed
from pipelines.catalog.summary import Summary
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant

START = datetime(2026, 1, 1, tzinfo=UTC)
CODES = ("truncated", "too_small", "not_an_image")


def row(number: int, status: str = "done", change: float = 0.3, code: str = "truncated"):
    outcome = {"result_uri": f"/nowhere/images/{number:07}.jpg", "scores": {"change": change}, "seconds": 0.5}
    failure = {"error_code": code, "error": f'It is "broken", says number {number}.'}
    place = {"uri": f"/nowhere/in/{number:07}.jpg", "relative_path": f"{number:07}.jpg", "width": 640, "height": 480}
    told = {"status": status, "finished_at": START + timedelta(seconds=number / 100), "job_id": "this-job"}
    return place | told | (outcome if status == "done" else failure)


@pytest.fixture
def reported(tmp_path, scene):
    """reported(rows, listed) -> the page, after their rows were written to a manifest and listed as a catalog."""
    recipe = Recipe(base="b", revision="r" * 64, pairs=(), attention="prefix", max_area=1, steps=2)
    edits = Edits(Variant(recipe), [(scene(1), scene(2))], "", 1.0, 10**6)
    feed = SimpleNamespace(edits=edits, folder=str(tmp_path / "catalog"))
    place = str(tmp_path / "out")
    prepared = SimpleNamespace(
        place=place, output=place, worn=(), feed=feed, recipe=recipe, manifest=f"{place}/manifest"
    )
    summary = Summary(
        total=0, done=1000, skipped=0, failed=0, seconds=600.0, images_per_second=1.7, manifest=prepared.manifest,
        report=f"{place}/report.html", job_id="this-job", workers=2, busy=0.973, cost=0.25, passed=Passed(),
    )  # fmt: skip

    def write(rows, listed=None, **more) -> str:
        owns = [Own(each.pop("before", None), each.pop("after", None)) for each in (listed or rows)]
        inputs = [
            Input(each["uri"], each["relative_path"], "e", 1, own=own)
            for each, own in zip(listed or rows, owns, strict=True)
        ]
        if inputs:
            list(parts.written(feed.folder, Catalog("", iter(inputs))))
        if rows:
            manifest.append(prepared.manifest, rows)
        report.write(prepared, SimpleNamespace(input="in"), replace(summary, **more))
        return Path(summary.report).read_text()

    write.failures = Path(summary.failures)
    write.catalog = Path(feed.folder)
    return write


MANY = """
SELECT '/nowhere/in/' || n || '.jpg' AS uri, format('{:07d}.jpg', n) AS relative_path, 640::INT AS width,
       480::INT AS height, if(n % 4 = 0, 'failed', 'done') AS status,
       if(n % 4 = 0, ['truncated', 'too_small', 'not_an_image'][least(n % 100 // 4, 2) + 1], NULL) AS error_code,
       if(n % 4 = 0, NULL, '/nowhere/images/' || n || '.jpg') AS result_uri,
       if(n % 4 = 0, format('It is "broken", says number {}.', n), NULL) AS error,
       map {'change': (hash(n) % 1000) / 1000} AS scores, 0.5::DOUBLE AS seconds, n AS size, 'e' AS etag,
       TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_milliseconds(n) AS finished_at, 'this-job' AS job_id
FROM range(200_000) AS numbers(n)
"""


def write_many(schema: pa.Schema, path: Path) -> None:
    """200,000 rows of this schema, as one Parquet file; columns that nobody needs are null."""
    rows = duckdb.sql(MANY).to_arrow_table()
    columns = {name: rows[name] if name in rows.column_names else pa.nulls(len(rows)) for name in schema.names}
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns).cast(schema), path)


def failures_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_in(page: str) -> list[str]:
    return re.findall(r"<figcaption><span>(\d+\.jpg)", page)


def test_a_large_catalog_has_a_small_page_and_all_its_failures_beside_it(reported, tmp_path, monkeypatch):
    """With so little memory for DuckDB that it does not hold the rows: they have to go to disk."""
    monkeypatch.setattr(database, "MEMORY", "64MB")
    write_many(manifest.SCHEMA, tmp_path / "out/manifest/part-1.parquet")
    write_many(parts.SCHEMA, tmp_path / "catalog/part-1.parquet")
    page = reported([])
    assert len(page) < 200_000
    assert page.count(" says number ") == figures.FIRST_FAILURES and all(code in page for code in CODES)
    assert "150,000 of 200,000 images edited" in page and "<strong>50,000</strong>failed" in page
    assert len(names_in(page)) == len(set(names_in(page))) == report.SHEET
    found = failures_in(reported.failures)
    assert 'href="failures.csv"' in page
    assert [each["relative_path"] for each in found] == [f"{n:07}.jpg" for n in range(0, 200_000, 4)]
    assert found[1] == {
        "relative_path": "0000004.jpg", "uri": "/nowhere/in/4.jpg", "error_code": "too_small",
        "error": 'It is "broken", says number 4.',
    }  # fmt: skip


def test_those_that_stand_out_come_first_and_the_sample_is_the_same_every_time(reported):
    odd = {7: 0.01, 300: 0.99, 12: 0.05}
    rows = [row(n, change=odd.get(n, 0.4 + n / 100_000)) for n in range(500)]
    page = reported(rows)
    assert names_in(page)[:3] == ["0000300.jpg", "0000007.jpg", "0000012.jpg"]
    assert page.index("To look at first") < page.index("median, which is 40 %") < page.index(">Sample<")
    sample = names_in(page)[report.WORST :]
    assert len(sample) == report.SHEET - report.WORST and not {*sample} & {*names_in(page)[: report.WORST]}
    assert sample == sorted(sample) and names_in(reported([], rows)) == names_in(page)
    assert max(map(int, (name[:7] for name in sample))) > 400 and min(map(int, (name[:7] for name in sample))) < 100


def test_all_are_shown_where_they_fit_in_order(reported):
    page = reported([row(n, change=n / 100) for n in range(report.SHEET)])
    assert names_in(page) == [f"{n:07}.jpg" for n in range(report.SHEET)] and ">Results<" in page
    assert "its own pair" not in page


def test_a_row_that_brought_its_own_pair_shows_it(reported, tmp_path, scene):
    pair = {side: str(tmp_path / f"{side}.png") for side in ("before", "after")}
    for seed, place in enumerate(pair.values(), start=3):
        scene(seed).save(place)
    page = reported([row(1) | pair, row(2), row(3) | pair | {"after": "/nowhere/after.png"}])
    of_the_job, results = page.split(">Results<")
    assert of_the_job.count('alt="before"') == 1 and "its own pair" in results
    own, usual, half = results.split("<figure>")[1:4]
    assert 'alt="before"' in own and 'alt="after"' in own and "before" not in usual and "after is gone" in half
    assert own.index("before") < own.index("after") < own.index("query") < own.index("result")


def test_only_what_was_listed_counts_and_what_has_no_row_waits(reported):
    page = reported([row(1), row(2, "failed"), row(3)], listed=[row(1), row(9)])
    assert "1 of 2 images edited" in page and "<strong>1</strong>not yet tried" in page
    assert not reported.failures.exists() and "failures.csv" not in page


def test_the_table_of_failures_goes_when_there_are_none_any_more(reported):
    reported([row(1, "failed"), row(2)])
    assert len(failures_in(reported.failures)) == 1
    reported([row(1) | {"finished_at": START + timedelta(days=1)}])
    assert not reported.failures.exists()


def test_failures_go_to_a_bucket_as_to_a_folder(reported, moto_bucket, tmp_path):
    target = store.join(moto_bucket, "out/failures.csv")
    reported([row(n, "failed") for n in range(3)])
    with figures.opened(str(tmp_path / "out/manifest"), str(reported.catalog)) as found:
        found.write_failures(target)
    assert store.read(target) == reported.failures.read_bytes()


def test_the_last_run_tells_its_rate_busy_share_and_cost(reported):
    page = reported([row(n) for n in range(600)])
    assert "97 %" in page and "0.25 per 1,000 images" in page and "Images per second" in page
    assert page.count("<svg") == 1 and "http" not in page and "<script" not in page
    assert "<svg" not in reported([], [row(n) for n in range(600)], job_id="a-job-that-edited-nothing")


def test_names_and_sentences_are_text_whatever_they_hold(reported):
    trick = "<img src=x onerror=alert(1)>.jpg"
    page = reported([row(1, "failed") | {"relative_path": trick, "error": "<b>&"}])
    assert trick not in page and "&lt;img src=x" in page and "&lt;b&gt;&amp;" in page


def test_throughput_is_drawn_to_scale():
    drawn = chart(Throughput(10.0, [5, 20, 10, 0]))
    assert (drawn.unit, drawn.top, drawn.seconds) == ("second", 2, 40)
    step, half = WIDTH / 4, HEIGHT / 2
    heights = [float(y) for y in re.findall(r"V([\d.]+)H", drawn.path)]
    assert heights == [HEIGHT * 0.75, 0, half, HEIGHT] and f"H{step:.1f}" in drawn.path
    assert chart(Throughput(100.0, [5, 3])).unit == "minute" and chart(Throughput(1e5, [1, 2])).unit == "hour"
