"""Pairs in: what is found, what is usable, and why the rest is not."""

import json

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.errors import PairError, StoreError
from pipelines.pairs.check import check_pairs, usable
from pipelines.pairs.source import find_pairs
from tests.crafted import file_of

MANY = 10**8


def write_pair(folder, name, before, after):
    folder.mkdir(parents=True, exist_ok=True)
    before.save(folder / f"{name}_before.png")
    after.save(folder / f"{name}_after.png")


def inverted(image):
    return image.point(lambda value: 255 - value)


@pytest.fixture
def folder(tmp_path, scene):
    for seed in range(3):
        write_pair(tmp_path, f"good{seed}", scene(seed), inverted(scene(seed)))
    return tmp_path


def codes(folder):
    return {each.name: each.code for each in check_pairs(str(folder), MANY)}


def test_a_good_folder_is_usable_whole(folder):
    checked = check_pairs(str(folder), MANY)
    assert [each.name for each in checked] == ["good0", "good1", "good2"] and all(each.pair for each in checked)
    assert len({pair.digest for pair in usable(checked, "")}) == 3


@pytest.mark.parametrize("missing", ["before", "after"])
def test_a_missing_partner_is_named(folder, missing):
    (folder / f"good1_{missing}.png").unlink()
    assert codes(folder) == {"good0": None, "good1": f"no_{missing}", "good2": None}


def test_every_kind_of_trouble_has_its_code_and_costs_no_other_pair(folder, scene):
    write_pair(folder, "same", scene(10), scene(10))
    write_pair(folder, "wide", scene(11), inverted(scene(11, (96, 32))))
    write_pair(folder, "tiny", scene(12, (8, 8)), inverted(scene(12, (8, 8))))
    write_pair(folder, "twin", scene(0), inverted(scene(0)))
    write_pair(folder, "torn", scene(13), inverted(scene(13)))
    (folder / "torn_after.png").write_bytes((folder / "torn_after.png").read_bytes()[:200])
    write_pair(folder, "twice", scene(14), inverted(scene(14)))
    scene(14).save(folder / "twice_before.jpg")
    nearly = inverted(scene(2, (480, 320)))
    scene(2, (480, 320)).save(folder / "resaved_before.jpg", quality=90)
    nearly.save(folder / "resaved_after.jpg", quality=90)
    found = codes(folder)
    assert {name: found[name] for name in found if not name.startswith("good")} == {
        "same": "no_change",
        "wide": "framing",
        "tiny": "too_small",
        "twin": "duplicate",
        "torn": "unreadable",
        "twice": "ambiguous",
        "resaved": "near_duplicate" if found["good2"] is None else None,
    }
    assert all(found[f"good{seed}"] is None for seed in range(3))


def test_another_size_of_one_framing_is_resized_and_noted(folder, scene):
    write_pair(folder, "large", scene(20), inverted(scene(20, (96, 64))))
    [large] = [each for each in check_pairs(str(folder), MANY) if each.name == "large"]
    assert large.pair.after.size == large.pair.before.size and "96x64 becomes 48x32" in large.note


def test_sub_folders_and_a_column_tell_edits_apart(tmp_path, scene):
    for edit in ("lift", "shine"):
        write_pair(tmp_path / edit, "a", scene(1), inverted(scene(1)))
    assert {found.name: found.edit for found in find_pairs(str(tmp_path))} == {"lift/a": "lift", "shine/a": "shine"}
    rows = {"before": ["lift/a_before.png"] * 2, "after": ["lift/a_after.png"] * 2, "edit": ["one", "two"]}
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    csv.write_csv(pa.table(rows), tmp_path / "pairs.csv")
    for table in ("pairs.parquet", "pairs.csv"):
        found = find_pairs(str(tmp_path / table))
        assert [(each.edit, each.before) for each in found] == [
            (edit, (str(tmp_path / "lift/a_before.png"),)) for edit in ("one", "two")
        ]


def test_pairs_may_lie_in_any_store(tmp_path, scene):
    write_pair(tmp_path, "a", scene(1), inverted(scene(1)))
    for role in ("before", "after"):
        store.write(f"memory://{tmp_path.name}/a_{role}.png", (tmp_path / f"a_{role}.png").read_bytes())
    here, there = (check_pairs(where, MANY)[0].pair for where in (str(tmp_path), f"memory://{tmp_path.name}"))
    assert here.sha256 == there.sha256 and here.digest == there.digest


def test_nothing_usable_is_one_sentence(tmp_path, scene):
    with pytest.raises(PairError, match="no such folder"):
        check_pairs(str(tmp_path / "gone"), MANY)
    with pytest.raises(PairError, match="NAME_before"):
        check_pairs(str(tmp_path), MANY)
    (tmp_path / "table.csv").write_text("before,behind\na,b\n")
    with pytest.raises(PairError, match=r"column `after`; it has before, behind"):
        check_pairs(str(tmp_path / "table.csv"), MANY)
    write_pair(tmp_path, "same", scene(1), scene(1))
    with pytest.raises(PairError, match=r"none of 1 pairs.*look the same"):
        usable(check_pairs(str(tmp_path), MANY), "here")
    with pytest.raises(StoreError):
        check_pairs("ftp://host/pairs", MANY)


def test_the_command_tells_and_shows(folder, scene):
    write_pair(folder, "same", scene(10), scene(10))
    sheet = folder / "out" / "sheet.png"
    told = CliRunner().invoke(app, ["pairs", "check", str(folder), "--sheet", str(sheet), "--json"])
    assert told.exit_code == 3
    outcome = json.loads(told.stdout)
    assert outcome["usable"] == 3 and [row["code"] for row in outcome["pairs"]] == [None, None, None, "no_change"]
    with Image.open(sheet) as image:
        assert image.height > 4 * 192 and len(image.getcolors(10**6)) > 100
    shown = CliRunner().invoke(app, ["pairs", "check", str(folder), "--sheet", str(sheet)])
    assert "3 of 4 pairs can be used" in shown.stdout
    (folder / "same_after.png").unlink()
    (folder / "same_before.png").unlink()
    assert CliRunner().invoke(app, ["pairs", "check", str(folder), "--sheet", str(sheet)]).exit_code == 0


def test_pairs_may_be_photos_of_phones(tmp_path, scene):
    """HEIC and AVIF, whatever they are called; a torn one costs no other pair, and a raw file is no pair."""
    for number, (kind, other) in enumerate((("HEIF", "HEIF"), ("AVIF", "HEIF"), ("JPEG", "AVIF"))):
        name, before = f"p{number}", scene(number, (96, 64))
        (tmp_path / f"{name}_before.HEIC").write_bytes(file_of(before, kind))
        (tmp_path / f"{name}_after.avif").write_bytes(file_of(inverted(before), other))
    (tmp_path / "torn_before.heic").write_bytes(file_of(scene(8), "HEIF")[:-100])
    (tmp_path / "torn_after.heic").write_bytes(file_of(scene(9), "HEIF"))
    for name in ("raw_before.dng", "raw_after.dng", "._p0_before.HEIC"):
        (tmp_path / name).write_bytes(b"raw")
    checked = {each.name: each for each in check_pairs(str(tmp_path), MANY)}
    assert {name: each.code for name, each in checked.items()} == {
        "p0": None, "p1": None, "p2": None, "torn": "unreadable",
    }  # fmt: skip
    assert all(each.pair.before.mode == "RGB" for each in checked.values() if each.pair)
