from dataclasses import replace

import pyarrow as pa
import pytest

from pipelines.catalog import manifest
from pipelines.catalog.listing import Input
from pipelines.catalog.plan import Settled, Task, plan
from pipelines.catalog.work import Recipe, Variant
from pipelines.tuning import Tuning

RECIPE = Recipe(base="b", revision="1", pairs=(("x", "y"),), attention="prefix", max_area=100, steps=4)


def recorded(*rows: tuple[str, str, str | None, str], recipe: Recipe = RECIPE) -> pa.Table:
    """A manifest from (uri, etag, sha256, status)."""
    names = ("uri", "input_etag", "input_sha256", "status")
    whole = [dict(zip(names, row, strict=True)) | {"work_id": recipe.work_id(row[2])} for row in rows]
    return pa.Table.from_pylist(whole, schema=manifest.SCHEMA)


def outcome(found: Input, rows: pa.Table, recipe: Recipe = RECIPE, retry: bool = False) -> str:
    row = next((row for row in rows.to_pylist() if row["uri"] == found.uri), None)
    left = plan(found, row, Variant(recipe), retry)
    if isinstance(left, Task):
        return "compare" if left.recorded else "do"
    return "failed" if left is Settled.FAILED else "skip"


@pytest.mark.parametrize(
    ("rows", "retry", "expected"),
    [
        ([], False, "do"),
        ([("a", "e", "sha", "done")], False, "skip"),
        ([("a", "e", "sha", "done")], True, "skip"),
        ([("a", "old", "sha", "done")], False, "compare"),
        ([("a", "e", "sha", "failed")], False, "failed"),
        ([("a", "e", None, "failed")], False, "failed"),
        ([("a", "e", "sha", "failed")], True, "do"),
        ([("a", "old", "sha", "failed")], False, "do"),
        ([("other", "e", "sha", "done")], False, "do"),
    ],
)
def test_what_is_done_again(rows, retry, expected):
    assert outcome(Input("a", "a", "e"), recorded(*rows), retry=retry) == expected


@pytest.mark.parametrize(("status", "retry"), [("done", False), ("failed", False)])
def test_where_nobody_has_looked_at_the_input_the_reader_decides(status, retry):
    assert outcome(Input("a", "a", None), recorded(("a", "e", "sha", status)), retry=retry) == "compare"


@pytest.mark.parametrize("status", ["done", "failed"])
@pytest.mark.parametrize(
    "change",
    [{"steps": 5}, {"revision": "2"}, {"pairs": (("x", "z"),)}, {"format": "png"}, {"seed": 1}, {"restore": True}],
)
def test_another_recipe_is_other_work(status, change):
    rows = recorded(("a", "e", "sha", status))
    assert outcome(Input("a", "a", "e"), rows, replace(RECIPE, **change)) == "do"


def test_a_bad_path_that_was_mended_is_tried_again():
    bad = Input("a", "../a", "e").failing("bad_path", "No.")
    rows = recorded(("a", bad.etag, None, "failed"))
    assert outcome(bad, rows) == "failed" and outcome(Input("a", "a", "e"), rows) == "do"


def test_the_name_of_the_base_decides_nothing_and_the_format_no_pixels():
    assert replace(RECIPE, base="elsewhere").work_id("sha") == RECIPE.work_id("sha")


def test_a_tuning_that_changes_results_is_other_work_from_the_same_noise():
    marks = [
        Tuning(**asked).mark
        for asked in ({}, {"compile": True, "offload": True, "attention_backend": "flash"}, {"weights": "int8"},
                      {"weights": "int8", "tiling": True}, {"step_cache": "taylorseer"}, {"attention_backend": "sage"})
    ]  # fmt: skip
    recipes = [replace(RECIPE, tuning=mark) for mark in marks]
    assert recipes[0].work_id("sha") == recipes[1].work_id("sha") == RECIPE.work_id("sha")
    assert len({recipe.work_id("sha") for recipe in recipes}) == 5
    assert {recipe.seed_for("sha") for recipe in recipes} == {RECIPE.seed_for("sha")}
    assert replace(RECIPE, format="png").seed_for("sha") == RECIPE.seed_for("sha")
    assert replace(RECIPE, restore=True).seed_for("sha") == RECIPE.seed_for("sha")
    assert replace(RECIPE, seed=1).seed_for("sha") != RECIPE.seed_for("sha") != RECIPE.seed_for("other")
    assert all(0 <= RECIPE.seed_for(str(n)) < 2**63 for n in range(100))
