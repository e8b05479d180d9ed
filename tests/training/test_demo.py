"""The catalogs of `make demo`, and the sheet of what became of them."""

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from pipelines.catalog import manifest
from pipelines.catalog.listing import list_catalog
from training import demo
from training.scenes import HELD_OUT_CLASSES
from training.sheet import GAP, LINE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    demo.write_demo(place)
    return place


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalog.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_every_edit_has_a_pair_of_one_frame_that_shows_it(folder):
    for name in demo.EDITS:
        before, after = (pixels(folder / f"pairs/{name}_{side}.png") for side in ("before", "after"))
        assert before.size == after.size and max(before.size) == 384
        assert ImageChops.difference(before, after).getbbox(), name


def test_the_job_takes_every_row_with_the_pair_of_its_edit(folder):
    rows = {str((folder / row["uri"]).resolve()): row for row in rows_of(folder)}
    listed = list(list_catalog(str(folder / "catalog.csv"), str(folder / "edited")))
    assert len(listed) == 3 * len(demo.EDITS) and not any(each.error for each in listed)
    for each in listed:
        edit = Path(each.uri).parent.name
        assert each.uri in rows and max(pixels(Path(each.uri)).size) in (256, 384, 385)
        if edit == demo.USUAL:
            assert each.own.before is None and each.own.after is None
        else:
            sides = [Path(str(side)) for side in (each.own.before, each.own.after)]
            assert [side.name for side in sides] == [f"{edit}_before.png", f"{edit}_after.png"]
            assert all(side.exists() for side in sides)


def test_two_of_three_pictures_show_what_the_base_has_never_seen(folder):
    for name in demo.EDITS.keys() - {"tone"}:
        seen = [path.stem.split()[1] in HELD_OUT_CLASSES for path in sorted((folder / "catalog" / name).iterdir())]
        assert seen == [False, True, True], name


def test_the_same_demo_every_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "EDITS", {"background": demo.EDITS["background"]})
    demo.write_demo(tmp_path)
    again = list(tmp_path.rglob("*.png"))
    assert again
    for path in again:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path


def test_what_the_commands_of_makefile_and_readme_take_is_there(folder):
    text = "".join((ROOT / name).read_text().replace("\\\n", " ") for name in ("Makefile", "README.md"))
    taken = re.findall(r"--pair demo-output/(\S+) demo-output/(\S+)|--(?:input|pairs) demo-output/([\w/.-]+)", text)
    paths = {path for found in taken for path in found if path}
    assert {"catalog.csv", "products", "pairs/red-left"} <= paths
    assert all((folder / path).exists() for path in paths), paths


def test_the_sheet_shows_results_beside_their_pictures_and_leaves_a_place_where_one_is_missing(folder):
    names = list(demo.EDITS)
    first = sorted((folder / "catalog" / names[1]).iterdir())
    grey = folder / "grey.png"
    Image.new("RGB", (384, 384), (90, 90, 90)).save(grey)
    row = {"relative_path": "a.png", "status": "done", "finished_at": datetime.now(UTC)}
    manifest.append(str(folder / "edited/manifest"), [row | {"uri": str(first[1].resolve()), "result_uri": str(grey)}])
    sheet = np.asarray(pixels(demo.write_sheet(folder))).astype(int)

    def cell(row: int, column: int) -> np.ndarray:
        top, left = LINE + GAP + row * (demo.CELL + GAP + LINE), GAP + column * (demo.CELL + GAP)
        return sheet[top : top + demo.CELL, left : left + demo.CELL]

    assert (cell(1, 3) == 255).all() and np.abs(cell(1, 5) - 90).max() < 8 and (cell(0, 7) == 255).all()
    for row, name in enumerate(names):
        assert all(cell(row, column).std() > 0 for column in (0, 1, 2, 4, 6)), name
