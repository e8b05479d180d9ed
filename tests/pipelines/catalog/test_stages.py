from pathlib import Path

import pytest
from PIL import Image

from infra.errors import ImageError, PairError
from pipelines.catalog import stages
from pipelines.catalog.bench import Bench
from pipelines.catalog.listing import Input
from pipelines.catalog.plan import Task
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant, sha256
from pipelines.codec import Photo

RECIPE = Recipe(base="b", revision="1", pairs=(("x", "y"),), attention="prefix", max_area=4096, steps=2)


VARIANT = Variant(RECIPE)


def bench_of(base: str, *pairs, batch_size: int = 8) -> Bench:
    return Bench(base, Edits(VARIANT, pairs, "", 1.0, 10**6), "", batch_size)


def written(item: stages.Item, output: Path) -> dict:
    (row,) = stages.write([item], str(output), "job")
    return row


def item(name: str, image: Image.Image | None, error: ImageError | None = None) -> stages.Item:
    photo = Photo(image, "PNG") if image else None
    return stages.Item(Input(name, name, "e"), VARIANT, sha256(name.encode()), photo, error=error)


@pytest.fixture(scope="module")
def bench(tiny_base, scene):
    return bench_of(str(tiny_base), (scene(1), scene(2)))


def test_one_image_that_breaks_its_batch_costs_the_others_nothing(bench, scene):
    good, bad = item("good", scene(3)), item("bad", Image.new("RGB", (8, 8)))  # 8: less than one token
    broken = item("broken", None, ImageError("No.", "truncated"))
    together = {done.input.uri: done for done in stages.edit([good, bad, broken], bench)}
    (alone,) = stages.edit([good], bench)
    assert together["good"].result.tobytes() == alone.result.tobytes() and together["good"].error is None
    assert together["bad"].error.code == "too_small" and together["bad"].result is None
    assert together["broken"].error.code == "truncated"


def test_a_pair_of_different_framing_is_refused(tiny_base, scene):
    for after in (scene(2, (48, 16)), Image.new("RGB", (1, 1))):
        with pytest.raises(PairError):
            bench_of(str(tiny_base), (scene(1), after))


def test_unchanged_bytes_are_not_decoded_again(tmp_path):
    path = tmp_path / "touched.png"
    path.write_bytes(b"these bytes are no image, but nobody looks")
    recorded = {"work_id": RECIPE.work_id(sha256(path.read_bytes())), "input_etag": "old", "status": "done"}
    (read,) = stages.read([Task(Input(str(path), "touched.png", "new"), VARIANT, recorded)], 10**6)
    row = written(read, tmp_path)
    assert read.error is None and read.photo is None
    assert row["input_etag"] == "new" and row["status"] == "done" and row["finished_at"]


@pytest.mark.parametrize("name", ["missing.png", "folder.png"])
def test_what_cannot_be_read_is_a_row_that_says_so(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    (read,) = stages.read([Task(Input(str(tmp_path / name), name, ""), VARIANT)], 10**6)
    row = written(read, tmp_path)
    assert (row["status"], row["error_code"], row["input_sha256"]) == ("failed", "unreadable", None)
    assert row["work_id"] == RECIPE.work_id(None)


def test_a_result_that_cannot_be_written_is_a_failed_row(tmp_path, scene):
    name = "x" * 300 + ".png"
    done = stages.Item(Input(name, name, "e"), VARIANT, "sha", Photo(scene(), "PNG"), result=scene(1))
    row = written(done, tmp_path)
    assert (row["status"], row["error_code"]) == ("failed", "not_written")
    assert not (tmp_path / "images").exists() or not any((tmp_path / "images").iterdir())


def test_change_runs_from_nothing_to_everything(tmp_path):
    black, white = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), "white")
    for result, change in ((black, 0.0), (white, 1.0)):
        done = stages.Item(Input("a", "a.png", "e"), VARIANT, "sha", Photo(black, "PNG"), result=result)
        assert written(done, tmp_path)["scores"] == {"change": change}
