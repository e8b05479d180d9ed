"""`edit-transfer apply` from the command line to the files, with real Ray and a small real base."""

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra.cli import app

GOOD = {
    "jpeg photo.jpg": ("JPEG", "RGB"),
    "sub/png.png": ("PNG", "RGB"),
    "sub/png.PNG": ("PNG", "RGB"),
    "ünï/webp.webp": ("WEBP", "RGB"),
    "tiff.tif": ("TIFF", "RGB"),
    "inks.jpg": ("JPEG", "CMYK"),
    "grey.jpg": ("JPEG", "L"),
    "deep.png": ("PNG", "I;16"),
    "palette.png": ("PNG", "P"),
    "cutout.png": ("PNG", "RGBA"),
}
BAD = {
    "bad/truncated.jpg": "truncated",
    "bad/empty.png": "empty_file",
    "bad/text.png": "not_an_image",
    "bad/modern.jxl": "unsupported",
    "bad/dot.png": "too_small",
    "bad/banner.png": "aspect_ratio",
    "bad/bomb.png": "too_many_pixels",
    "bad/nowhere.jpg": "unreadable",
}


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, scene) -> Path:
    """A folder such as people have: many kinds of good images, many kinds of bad ones, and a note."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, (format, mode)) in enumerate(GOOD.items()):
        image = scene(number, (48 + 16 * (number % 2), 40))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        save(image if mode in ("RGB", "I;16") else image.convert(mode), folder / name, format=format)
    save(scene(50, (200, 150)), folder / "bad/truncated.jpg")
    os.truncate(folder / "bad/truncated.jpg", 1500)
    (folder / "bad/empty.png").touch()
    (folder / "bad/text.png").write_text("This is not a picture.")
    (folder / "bad/modern.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))
    save(Image.new("RGB", (1, 1)), folder / "bad/dot.png")
    save(Image.new("RGB", (900, 20)), folder / "bad/banner.png")
    save(Image.new("1", (12_000, 12_000)), folder / "bad/bomb.png")
    (folder / "bad/nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "notes.txt").write_text("Edit these.")
    return folder


@dataclass(frozen=True)
class Told:
    """What a command told: its exit code, its summary and what it said beside it."""

    code: int
    summary: dict[str, Any]
    beside: str


@pytest.fixture(scope="module")
def apply(ray_cluster, tiny_base, pair):
    def run(source: Path, output: Path, *options: str) -> Told:
        arguments = ["apply", "--pair", *pair, "--base", str(tiny_base), "--json"]
        told = CliRunner().invoke(app, [*arguments, "--input", str(source), "--output", str(output), *options])
        summary = json.loads(told.stdout) if told.stdout else {}
        return Told(told.exit_code, summary, told.stderr)

    return run


@pytest.fixture(scope="module")
def first(apply, photos, tmp_path_factory) -> tuple[Told, Path]:
    output = tmp_path_factory.mktemp("first") / "out"
    return apply(photos, output, "--workers", "1", "--batch-size", "8"), output


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    rows = ds.dataset(output / "manifest").to_table().to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows)
    return {row["relative_path"]: row for row in rows}


def digests(output: Path) -> dict[str, str]:
    images = output / "images"
    return {
        str(path.relative_to(images)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in images.rglob("*")
        if path.is_file()
    }


def counts(told: Told) -> tuple[int, int, int, int]:
    return tuple(told.summary[name] for name in ("total", "done", "skipped", "failed"))


def test_good_images_are_edited_and_bad_ones_explained(first):
    told, output = first
    rows = rows_of(output)
    assert told.code == 3 and counts(told) == (18, 10, 0, 8)
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] == "failed"} == BAD
    assert all(row["error"].endswith(".") for row in rows.values() if row["status"] == "failed")
    assert {name for name, row in rows.items() if row["status"] == "done"} == set(GOOD) == set(digests(output))


def test_results_have_name_format_size_and_digest_of_their_rows(first, photos):
    _, output = first
    rows = rows_of(output)
    for name, digest in digests(output).items():
        row, path = rows[name], output / "images" / name
        assert (row["result_uri"], row["result_sha256"]) == (str(path), digest)
        with Image.open(path) as result, Image.open(photos / name) as query:
            assert result.format == GOOD[name][0] and result.size == query.size == (
                row["width"],
                row["height"],
            )
            assert result.mode == {"CMYK": "CMYK", "RGBA": "RGBA"}.get(GOOD[name][1], "RGB")
        assert 0 < dict(row["scores"])["change"] < 1 and row["seed"] >= 0 and row["steps"] == 2


def test_stdout_is_one_json_object_and_the_rest_is_quiet(first):
    told, output = first
    assert set(told.summary) == {
        "total", "done", "skipped", "failed", "seconds", "images_per_second", "manifest", "report",
        "job_id", "workers", "busy", "cost",
    }  # fmt: skip
    assert Path(told.summary["report"]).is_file() and Path(told.summary["manifest"]).is_dir()
    assert "notes.txt" in told.beside and len(told.beside.splitlines()) < 5
    assert sorted(path.name for path in output.iterdir()) == [
        "failures.csv", "images", "jobs", "manifest", "report.html",
    ]  # fmt: skip


def test_the_report_stands_alone_and_shows_everything(first):
    page = Path(first[0].summary["report"]).read_text()
    assert "http" not in page and "<script" not in page
    assert all(name in page for name in [*GOOD, *BAD, *BAD.values()])
    assert page.count('src="data:image/png;base64,') == 2 * (len(GOOD) + 1)  # small pictures stay lossless


def test_the_same_command_again_redoes_nothing(apply, photos, first):
    output = first[1]
    before = {
        path: path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file() and path.suffix not in (".html", ".csv")
    }
    told = apply(photos, output)
    assert told.code == 3 and counts(told) == (18, 0, 10, 8)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(("workers", "batch"), [("2", "3"), pytest.param("1", "1", marks=pytest.mark.slow)])
def test_results_are_the_same_bits_for_any_workers_and_batches(apply, photos, first, tmp_path, workers, batch):
    told = apply(photos, tmp_path / "out", "--workers", workers, "--batch-size", batch)
    assert counts(told) == (18, 10, 0, 8)
    assert digests(tmp_path / "out") == digests(first[1])


def test_what_changed_is_done_again_and_nothing_else(apply, photos, first, scene, tmp_path):
    """One image is replaced, one only touched, one new; one failure is mended, one as it was."""
    copy, output = tmp_path / "photos", tmp_path / "out"
    copy.mkdir()
    for name in ("jpeg photo.jpg", "tiff.tif", "grey.jpg", "bad/text.png", "bad/empty.png"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy2(photos / name, copy / name)
    assert counts(apply(copy, output, "--workers", "1")) == (5, 3, 0, 2)
    before = digests(output)
    save(scene(77), copy / "jpeg photo.jpg")
    os.utime(copy / "tiff.tif", ns=(0, 0))
    save(scene(78), copy / "new.png")
    save(scene(79), copy / "bad/text.png")
    assert counts(apply(copy, output, "--workers", "1")) == (6, 3, 2, 1)
    after = digests(output)
    assert {name for name in after if after[name] != before.get(name)} == {
        "jpeg photo.jpg", "new.png", "bad/text.png",
    }  # fmt: skip
    assert Counter(row["status"] for row in rows_of(output).values()) == {"done": 5, "failed": 1}
    assert counts(apply(copy, output)) == (6, 0, 5, 1)


def test_failures_are_retried_and_everything_redone_only_when_asked(apply, photos, first):
    output = first[1]
    before, job = digests(output), {row["job_id"] for row in rows_of(output).values()}
    assert counts(apply(photos, output, "--retry-failed", "--workers", "1")) == (18, 0, 10, 8)
    rows = rows_of(output)
    assert {row["job_id"] for row in rows.values() if row["status"] == "done"} == job
    assert not job & {row["job_id"] for row in rows.values() if row["status"] == "failed"}
    assert counts(apply(photos, output, "--fresh", "--limit", "6", "--workers", "1"))[0] == 6
    assert digests(output) == before and len(rows_of(output)) == 18


def test_a_dry_run_counts_predicts_and_writes_nothing(apply, photos, tmp_path):
    told = apply(photos, tmp_path / "out", "--dry-run")
    assert told.code == 0 and not (tmp_path / "out").exists()
    assert (told.summary["total"], told.summary["to_do"]) == (18, 18)
    assert {name: code for name, code, _ in told.summary["failures"]} == {
        name: code for name, code in BAD.items() if code != "truncated"
    }
    assert told.summary["formats"] == {"PNG": 5, "JPEG": 4, "WEBP": 1, "TIFF": 1}
    assert told.summary["seconds_per_image"] > 0


def test_a_base_that_cannot_run_stops_the_job_before_it_writes(apply, photos, tiny_base, tmp_path):
    other = tmp_path / "base"
    shutil.copytree(tiny_base, other)
    config = json.loads((other / "transformer/config.json").read_text())
    (other / "transformer/config.json").write_text(json.dumps(config | {"_class_name": "SomethingElse"}))
    told = apply(photos, tmp_path / "out", "--base", str(other))
    assert told.code == 2 and "SomethingElse" in told.beside
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pair", "only-one.png"], "BEFORE AFTER"),
        (["--pair", "missing.png", "missing.png"], "missing.png"),
        (["--pair", "{photos}/bad/text.png", "{photos}/tiff.tif"], "text.png"),
        (["--base", "no/such/base"], "no/such/base"),
        (["--adapter", "lift-arms@3"], "lift-arms@3"),
        (["--input", "{photos}/nothing"], "nothing"),
        (["--output", "{photos}"], "inside the output"),
        (["--output", "{photos}/notes.txt"], "notes.txt"),
    ],
)
def test_what_makes_no_sense_stops_before_anything_starts(apply, photos, tmp_path, options, said):
    told = apply(photos, tmp_path / "out", *(option.format(photos=photos) for option in options))
    assert told.code == 2 and said in told.beside and told.summary == {}
    assert len(told.beside.strip().splitlines()) <= 2 and "Traceback" not in told.beside
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_catalog_of_broken_files_has_a_report_too(apply, tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jpg").touch()
    (folder / "b.jpg").symlink_to(folder / "b.jpg")
    told = apply(folder, output)
    assert told.code == 3 and counts(told) == (2, 0, 0, 2)
    assert "empty_file" in (output / "report.html").read_text()


@pytest.mark.slow
def test_fresh_does_without_a_damaged_manifest(apply, photos, tmp_path):
    (tmp_path / "out" / "manifest").mkdir(parents=True)
    (tmp_path / "out" / "manifest" / "part-x.parquet").write_bytes(b"junk")
    refused = apply(photos, tmp_path / "out", "--limit", "1")
    assert refused.code == 2 and "--fresh" in refused.beside
    assert apply(photos, tmp_path / "out", "--limit", "1", "--fresh").code in (0, 3)
    assert len(rows_of(tmp_path / "out")) == 1


@pytest.fixture(scope="module")
def patched(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with a pair that puts a patch on an object, and one with photos five times the base's size."""
    import torch

    from pipelines.transfer import bases
    from training.evaluation.suite import to_image
    from training.scenes import FAMILIES, draw_scenes, render

    generator = torch.Generator().manual_seed(3)
    pair, photos = tmp_path_factory.mktemp("patch"), tmp_path_factory.mktemp("large")
    side = isqrt(bases.settings_of(bases.BUNDLED).max_area)
    small, large = (side, side), (5 * side, 5 * side)
    shown = draw_scenes(1, small, generator, classes=("bag",))
    after = FAMILIES["add"].apply(shown, torch.tensor([[0.25, 0.3, 0.7, 0.15, 1.0]]))
    save(to_image(render(shown, small)[0]), pair / "before.png")
    save(to_image(render(after, small)[0]), pair / "after.png")
    query = to_image(render(draw_scenes(1, large, generator, classes=("mug",)), large)[0])
    save(query, photos / "mug.png")
    cutout = query.copy()
    cutout.putalpha(Image.linear_gradient("L").resize(query.size))
    save(cutout, photos / "cutout.png")
    return pair, photos


def test_restored_results_keep_what_the_edit_did_not_touch(ray_cluster, patched, tmp_path):
    """The bundled base, a pair that is local, and files that lose nothing."""
    folder, photos = patched
    shared = ["apply", "--pair", str(folder / "before.png"), str(folder / "after.png"), "--input", str(photos)]
    shared += ["--output", str(tmp_path / "out"), "--json", "--workers", "1"]
    rows, same = [], []
    for options in ([], ["--restore"], ["--restore"]):
        told = CliRunner().invoke(app, [*shared, *options])
        assert told.exit_code == 0, told.output
        rows.append(rows_of(tmp_path / "out"))
        with Image.open(tmp_path / "out/images/mug.png") as result, Image.open(photos / "mug.png") as query:
            same.append((np.asarray(result) == np.asarray(query)).all(2).mean())
    plain, restored, again = (each["mug.png"] for each in rows)
    kept = dict(restored["scores"])["kept"]
    assert set(dict(plain["scores"])) == {"change"} and 0.3 < kept < 1
    assert same[1] >= kept > same[0] + 0.2
    assert plain["work_id"] != restored["work_id"] and plain["seed"] == restored["seed"]
    assert again == restored and json.loads(told.stdout)["skipped"] == 2
    assert f"{kept * 100:.0f} % kept" in (tmp_path / "out/report.html").read_text()
    with Image.open(tmp_path / "out/images/cutout.png") as result, Image.open(photos / "cutout.png") as query:
        assert result.getchannel("A").tobytes() == query.getchannel("A").tobytes()
