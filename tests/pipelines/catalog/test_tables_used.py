"""What a job, a bucket and pairs make of tables and of what stands in their cells."""

import gzip
import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra import settings, store
from infra.cli import app
from infra.errors import CatalogError, ImageError, PairError
from pipelines.catalog import job
from pipelines.catalog.listing import Own, list_catalog
from pipelines.catalog.options import Options
from pipelines.pairs.source import find_pairs
from tests.pipelines.catalog.listed import TWO, put


def prepared(table, base, pair):
    options = Options(input=str(table), output=str(table.parent / "out"), pairs=[pair], base=str(base))
    return job.prepare(options, settings.from_environment())


@pytest.fixture(scope="module")
def choose(tiny_base, pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    put(folder, "a.csv", "uri\na.jpg\n")
    return prepared(folder / "a.csv", tiny_base, pair).feed.edits.chooser()


@pytest.mark.parametrize(
    ("seed", "number"),
    [("7", 7), ("007", 7), (" 7 ", 7), ("7.0", 7), ("7.", 7), ("-3", -3), ("+3", 3), (str(2**70), 2**70)]
    + [(none, 0) for none in ("NaN", "nan", "null", "None", "N/A", "#N/A", "<NA>", " ")],
)
def test_a_seed_is_any_whole_number_or_none(choose, seed, number):
    assert choose(Own(seed=seed)).recipe.seed == number


def test_a_seed_that_lost_digits_is_told_as_such(choose, tmp_path):
    pq.write_table(pa.table({"uri": ["a.jpg"], "seed": [2.0**60]}), tmp_path / "t.parquet")
    [found] = list_catalog(str(tmp_path / "t.parquet"), str(tmp_path / "out"))
    for seed in (found.own.seed, "1,23457E+14"):
        with pytest.raises(ImageError, match="no whole number with all its digits"):
            choose(Own(seed=seed))


@pytest.mark.parametrize(
    "seed", ["4.5", "1e3", "1.000", "1,000", "7,0", "true", "2026-01-02", "inf", "seven", "1" * 5000]
)
def test_any_other_seed_is_a_failure_of_its_row(choose, seed):
    with pytest.raises(ImageError, match="is no whole number") as refused:
        choose(Own(seed=seed))
    assert refused.value.code == "bad_override"


@pytest.mark.parametrize("adapter", ["7", "4.5", "true", "2026-01-02", "NaN"])
def test_an_adapter_that_is_a_number_is_a_failure_of_its_row(choose, adapter):
    with pytest.raises(ImageError) as refused:
        choose(Own(adapter=adapter))
    assert refused.value.code == "bad_override" and adapter in str(refused.value)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_tables_in_a_bucket_are_read_as_those_in_a_folder(moto_bucket, tmp_path, name):
    if name == "t.parquet":
        pq.write_table(pa.table({"URI": ["a.jpg", "b.jpg"], "seed": [7.0, None]}), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        content = b"uri;Seed\na.jpg;7\nb.jpg;" if name == "t.csv" else b'{"uri": "a.jpg", "seed": 7}\n{"uri": "b.jpg"}'
    store.write(f"{moto_bucket}/{name}", gzip.compress(content) if name.endswith(".gz") else content)
    found = list(list_catalog(f"{moto_bucket}/{name}", str(tmp_path / "out")))
    assert {each.uri: each.own for each in found} == {f"{moto_bucket}/{name}": own for name, own in TWO.items()}


def test_other_files_in_a_bucket_are_told_what_tables_are(moto_bucket, tmp_path):
    store.write(f"{moto_bucket}/list.txt", b"a.jpg\n")
    with pytest.raises(CatalogError, match=r"list\.txt: this is neither an image nor a table\. A table is"):
        list(list_catalog(f"{moto_bucket}/list.txt", str(tmp_path / "out")))
    with pytest.raises(CatalogError, match=r"there are no images in it\. 1 other"):
        list(list_catalog(moto_bucket, str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "Before;After;Edit\na.png;b.png;lift\n"),
        ("t.jsonl", '{"before": "a.png", "after": "b.png", "edit": "lift"}\n'),
        ("t.tsv.gz", gzip.compress(b"BEFORE\tAFTER\tEDIT\na.png\tb.png\tlift\n")),
    ],
    ids=["csv", "jsonl", "tsv.gz"],
)
def test_pairs_are_read_from_the_same_tables(tmp_path, name, content):
    [found] = find_pairs(str(put(tmp_path, name, content)))
    assert (found.edit, found.before, found.after) == ("lift", (f"{tmp_path}/a.png",), (f"{tmp_path}/b.png",))


def test_what_a_row_cannot_have_is_known_before_its_image_is_read(tiny_base, pair, scene, tmp_path):
    scene(1).save(tmp_path / "a.png")
    lines = [
        "URI\tSeed\tAdapter",
        "a.png\t7.0\t",
        "b.png\t4.5\t",
        "c.png\t7",
        "d.png\t\tlift",
        "e.png\tNaN\t\t\t",
        "f.png\t1\t\tx",
    ]
    table = prepared(put(tmp_path, "t.tsv", "\n".join(lines)), tiny_base, pair)
    tasks = {each.input.relative_path.rpartition("/")[2]: each for each in table.glance.planned}
    assert {name: task.input.error_code for name, task in tasks.items()} == {
        "a.png": None, "b.png": "bad_override", "c.png": "bad_row",
        "d.png": "bad_override", "e.png": None, "f.png": "bad_row",
    }  # fmt: skip
    assert (tasks["a.png"].variant.recipe.seed, tasks["e.png"].variant.recipe.seed) == (7, 0)
    assert "the seed '4.5' is no whole number" in tasks["b.png"].input.error
    assert "Line 4 of its table has 2 fields" in tasks["c.png"].input.error


@pytest.mark.parametrize(
    "content", ["url;x\na.jpg;1\n", 'uri\n"a.jpg\n', "uri\na.jpg\nü.jpg\n".encode("cp1252"), b"PAR1"]
)
def test_a_bad_table_stops_a_job_before_anything_starts(tiny_base, pair, tmp_path, content):
    table = put(tmp_path, "t.csv", content)
    options = ["--base", str(tiny_base), "--input", str(table), "--output", str(tmp_path / "out")]
    told = CliRunner().invoke(app, ["apply", "--pair", *pair, *options])
    assert told.exit_code == 2 and "t.csv: " in " ".join(told.stderr.split()) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_bad_cell_costs_its_row_only(ray_cluster, tiny_base, pair, scene, tmp_path):
    for number in range(5):
        scene(number).save(tmp_path / f"{number}.png")
    lines = ["URI;Seed;Adapter", "0.png;7.0;", "1.png;4.5;", "2.png;7", "3.png;;lift", "4.png;NaN;", "5.png;;"]
    table = put(tmp_path, "t.csv", "\r\n".join(lines))
    options = ["--base", str(tiny_base), "--input", str(table), "--output", str(tmp_path / "out"), "--workers", "1"]
    told = CliRunner().invoke(app, ["apply", "--pair", *pair, "--json", *options])
    assert told.exit_code == 3, told.stderr
    assert json.loads(told.stdout)["done"] == 2
    rows = {row["relative_path"]: row for row in ds.dataset(tmp_path / "out/manifest").to_table().to_pylist()}
    assert {name.rpartition("/")[2]: row["error_code"] for name, row in rows.items()} == {
        "0.png": None, "1.png": "bad_override", "2.png": "bad_row",
        "3.png": "bad_override", "4.png": None, "5.png": "unreadable",
    }  # fmt: skip
    said = {name.rpartition("/")[2]: row["error"] for name, row in rows.items()}
    assert "the seed '4.5' is no whole number" in said["1.png"] and "Line 4 of its table has 2 fields" in said["2.png"]


def test_a_row_of_another_length_in_a_table_of_pairs_is_told_with_its_line(tmp_path):
    with pytest.raises(PairError, match=r"t\.csv: Line 3 of its table has 1 fields, and the header 2"):
        find_pairs(str(put(tmp_path, "t.csv", "before,after\na.png,b.png\nc.png\n")))
