"""A folder as phones and cameras leave it, through the whole job: HEIC and AVIF as photos, as pairs, as results."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra.cli import app
from pipelines.codec import FORMATS
from tests.crafted import file_of

PHOTOS = {  # name, what it is, and the name and format of its result
    "IMG_1.HEIC": ("HEIF", "IMG_1.HEIC.jpg", "JPEG"),
    "b.avif": ("AVIF", "b.avif", "AVIF"),
    "sent.jpg": ("HEIF", "sent.jpg", "JPEG"),
    "renamed.heic": ("JPEG", "renamed.heic.jpg", "JPEG"),
    "shot.heif": ("PNG", "shot.heif.jpg", "JPEG"),
    "web.jpg": ("AVIF", "web.jpg", "AVIF"),
}


@pytest.fixture(scope="module")
def phone(tmp_path_factory, scene) -> Path:
    """Photos that are to be edited, two that cannot, and what lies beside them."""
    folder = tmp_path_factory.mktemp("phone")
    for number, (name, (format, _, _)) in enumerate(PHOTOS.items()):
        (folder / name).write_bytes(file_of(scene(number), format))
    (folder / "torn.heic").write_bytes(file_of(scene(9), "HEIF")[:-200])
    (folder / "torn.avif").write_bytes(file_of(scene(9), "AVIF")[:-100])
    (folder / "empty.heic").touch()
    (folder / "raw.jpg").write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(500))
    for name in ("1.CR2", "2.dng", "IMG_1.MOV", "._IMG_1.HEIC", "Thumbs.db"):
        (folder / name).write_bytes(bytes(100))
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory, scene) -> list[str]:
    """A pair as phones take it: before as HEIC, after as AVIF."""
    folder = tmp_path_factory.mktemp("shown")
    before = scene(1000)
    (folder / "before.heic").write_bytes(file_of(before, "HEIF"))
    (folder / "after.avif").write_bytes(file_of(before.point(lambda value: 255 - value), "AVIF"))
    return ["--pair", str(folder / "before.heic"), str(folder / "after.avif")]


@pytest.fixture(scope="module")
def apply(ray_cluster, tiny_base, shown):
    def run(source: Path, output: Path, *options: str) -> tuple[dict[str, Any], str]:
        arguments = ["apply", *shown, "--base", str(tiny_base), "--json", "--workers", "1"]
        told = CliRunner().invoke(app, [*arguments, "--input", str(source), "--output", str(output), *options])
        return json.loads(told.stdout), told.stderr

    return run


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    return {row["relative_path"]: row for row in ds.dataset(output / "manifest").to_table().to_pylist()}


def test_a_phones_folder_is_edited(apply, phone, tmp_path):
    output = tmp_path / "out"
    told, beside = apply(phone, output)
    rows = rows_of(output)
    assert (told["total"], told["done"], told["failed"]) == (10, 6, 4)
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] == "failed"} == {
        "torn.heic": "truncated", "torn.avif": "truncated", "empty.heic": "empty_file", "raw.jpg": "unsupported",
    }  # fmt: skip
    for name, (_, result, format) in PHOTOS.items():
        assert rows[name]["result_uri"] == str(output / "images" / result)
        with Image.open(rows[name]["result_uri"]) as image:
            assert (image.format, image.size) == (format, (48, 32))
    assert len(list((output / "images").iterdir())) == len(PHOTOS)
    page = (output / "report.html").read_text()
    for sentence in ("2 camera raw files: develop them first", "1 film: only photos are edited"):
        assert sentence in beside and sentence in page
    again, _ = apply(phone, output)
    assert (again["done"], again["skipped"], again["failed"]) == (0, 6, 4)


def test_a_dry_run_tells_the_same(apply, phone, tmp_path):
    told, beside = apply(phone, tmp_path / "out", "--dry-run")
    assert told["formats"]["HEIF"] >= 2 and told["formats"]["AVIF"] >= 2  # a torn one may show its header
    assert {name for name, _, _ in told["failures"]} >= {"empty.heic", "raw.jpg"}
    assert "2 camera raw files: develop them first" in beside


def test_rows_of_a_table_may_have_such_pairs_and_any_photo_may_become_an_avif(apply, phone, shown, scene, tmp_path):
    shutil.copy(phone / "IMG_1.HEIC", tmp_path / "a.heic")
    (tmp_path / "b.jpg").write_bytes(file_of(scene(3), "JPEG"))
    (tmp_path / "t.csv").write_text(f"uri,before,after\na.heic,{shown[1]},{shown[2]}\nb.jpg,,\n")
    told, _ = apply(tmp_path / "t.csv", tmp_path / "out", "--format", "avif")
    assert (told["done"], told["failed"]) == (2, 0)
    for row in rows_of(tmp_path / "out").values():
        with Image.open(row["result_uri"]) as image:
            assert row["result_uri"].endswith(".avif") and image.format == "AVIF"
    page = (tmp_path / "out" / "report.html").read_text()
    pictures = [each.partition('"')[0] for each in page.split("base64,")[1:]]
    assert len(pictures) == 2 + 2 + 2 * 2  # the job's pair, the row's own pair, two photos before and after
    assert all(Image.open(io.BytesIO(base64.b64decode(each))).format in FORMATS for each in pictures)
