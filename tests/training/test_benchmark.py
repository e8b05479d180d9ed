"""The benchmark as files: what is written is what is scored, whoever made the results."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import EditTransferError, UsageError
from pipelines.transfer import Editor
from training.evaluation import Plan, evaluate_scenes
from training.evaluation.benchmark import Benchmark
from training.evaluation.cases import VERSION, Drawn, draw_trials
from training.evaluation.export import export
from training.evaluation.plan import SPLITS
from training.evaluation.processes import spread
from training.evaluation.results import Saver, read_results
from training.evaluation.suite import Row, evaluate
from training.evaluation.systems import BASELINES, Edited
from training.scenes import EVERY_FAMILY

PLAN = Plan(families=("tone", "recolour+scale", "mirror"), cases=3, size=32)
PINNED = Path(__file__).with_name("pinned_cases.json")
WIDE = {"COLUMNS": "200"}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "benchmark"
    export(folder, PLAN)
    return folder


@pytest.fixture
def copies(benchmark, tmp_path) -> Path:
    """Results of somebody who hands in the queries, with either pair."""
    folder = tmp_path / "copies"
    shutil.copytree(benchmark / "query", folder)
    for file in sorted(folder.iterdir()):
        shutil.copy(file, file.with_name(f"{file.stem}.wrong.png"))
    return folder


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def invoke(*arguments: str, exit_code: int = 0):
    result = CliRunner(env=WIDE).invoke(app, ["evaluate", "--processes", "1", *map(str, arguments)])
    assert result.exit_code == exit_code, result.output
    return result


def scored(*arguments: str) -> dict:
    return json.loads(invoke("--json", *arguments).stdout)


def of_files(benchmark: Path, results: Path, plan: Plan | None = None) -> list[Row]:
    """The rows of results in files."""
    opened = Benchmark.open(benchmark)
    plan = plan or opened.plan
    wanted = [record["id"] for record in records(benchmark)]
    system, _ = read_results(results, wanted, wanted, side=plan.size, max_pixels=10**6, partial=False)
    return list(evaluate(system, opened, replace(plan, steps=())))


def without_steps(rows: list[Row]) -> list[Row]:
    return [replace(row, steps=None) for row in rows]


def test_results_from_files_score_as_they_did_when_they_were_made(benchmark, tiny_base, tmp_path):
    """Drawn on the spot or read back, edited just now or saved: the same rows, to the last digit."""
    editor = Editor.load(tiny_base, device="cpu")
    saver = Saver(tmp_path / "results")
    rows = without_steps(list(evaluate_scenes(editor, PLAN, saver.add)))
    assert [row.family for row in rows] == ["tone", "mirror", "recolour+scale"]
    assert of_files(benchmark, tmp_path / "results") == rows


def test_an_editor_is_asked_the_cases_of_a_folder(benchmark, tiny_base, tmp_path):
    drawn = scored("--base", tiny_base, "--cases", 3, "--family", "tone", "--size", 32)
    read = scored("--base", tiny_base, "--benchmark", benchmark, "--family", "tone")
    assert read["results"] == drawn["results"] and read["cases_digest"] == drawn["cases_digest"]
    assert read["size"] == 32 and read["benchmark"] == VERSION


def test_several_processes_give_the_same_scores(tiny_base):
    system, cases = Edited(Editor.load(tiny_base, device="cpu")), Drawn(seed=0, size=32)
    plan = replace(PLAN, families=("tone", "mirror"), steps=(1,))
    assert list(evaluate(system, cases, plan, processes=2)) == list(evaluate(system, cases, plan))


def test_a_process_that_dies_is_told():
    assert list(spread(abs, [-3, 2, -1], 2)) == [3, 2, 1]
    with pytest.raises(EditTransferError, match="--processes 1"):
        list(spread(os._exit, [0, 0], 2))


def test_the_same_plan_gives_the_same_files(benchmark, tmp_path):
    export(tmp_path / "again", PLAN)
    files = [file.relative_to(benchmark) for file in benchmark.rglob("*") if file.is_file()]
    assert len(files) == 3 + 5 * 9 + 7 * 6 + 3 * 3
    assert all((tmp_path / "again" / file).read_bytes() == (benchmark / file).read_bytes() for file in files)


def test_a_record_says_what_its_pictures_show(benchmark):
    """Everything in the table, held against the cases that it is about."""
    plan = Benchmark.open(benchmark).plan
    assert plan == PLAN
    cases = [case for family in EVERY_FAMILY if family in PLAN.families for trial in
             draw_trials(family, "objects", count=3, seed=0, size=32) for case in trial]  # fmt: skip
    for case, record in zip(cases, records(benchmark), strict=True):
        assert (record["id"], record["family"], record["split"]) == (case.id, case.family, "objects")
        assert list(record["parameters"]) == list(EVERY_FAMILY[case.family].parameters)
        edits = [record["parameters"], *record["alternatives_parameters"]]
        assert torch.allclose(torch.tensor([list(edit.values()) for edit in edits]), case.edits, atol=1e-6)
        assert record["wrong_parameters"] == edits[1]
        assert record["chance"] == pytest.approx(1 / len(case.edits)) and record["sha256"] == case.digest
        with Image.open(benchmark / record["truth_file_name"]) as truth:
            assert truth.size == (record["size"], record["size"]) == (32, 32)
        assert len(record["alternatives_file_names"]) == len(case.edits) - 1
    assert [record["pair"] for record in records(benchmark)][:3] == ["objects_tone_000"] * 2 + ["objects_tone_002"]


def test_the_band_has_no_chance(tmp_path):
    export(tmp_path / "band", Plan(splits=("parameters",), families=("tone",), cases=1, size=32))
    assert [record["chance"] for record in records(tmp_path / "band")] == [None]
    assert "the band that training never shows" in (tmp_path / "band" / "README.md").read_text()


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_parameters_have_names(family):
    names = EVERY_FAMILY[family].parameters
    assert len(set(names)) == len(names) > 0


def test_the_card_stands_alone(benchmark):
    """What the Hub reads, what has to be credited, and how its own numbers come about."""
    card = (benchmark / "README.md").read_text()
    head = json.loads((benchmark / "benchmark.json").read_text())
    assert card.startswith("---\nlicense: apache-2.0\n") and "Stefan van der Walt, CC0" in card
    assert head["digest"] in card and f"version {VERSION}" in card
    options = " ".join(f"--family {family}" for family in PLAN.families)
    assert f"--split objects --cases 3 --seed 0 --size 32 {options}" in card
    for name in ("Error", "undefined", "{{", "{%"):
        assert name not in card


def test_baselines_are_the_columns_of_their_names(benchmark, copies):
    rows = {name: list(evaluate(system, Drawn(seed=0, size=32), PLAN)) for name, system in BASELINES.items()}
    for column in ("copy", "blind", "oracle"):
        for row in rows[column]:
            assert row.scores.right == getattr(row.scores, column) == row.scores.wrong
            assert row.scores.margin == 0
    for row in rows["perfect"]:
        assert row.scores.right == 60 and row.scores.recovered == 1 and row.scores.recovered_wrong == 0
        assert row.scores.wrong <= row.scores.oracle
    assert of_files(benchmark, copies) == rows["copy"]


def test_without_wrong_results_nothing_is_said_of_them(benchmark, tmp_path):
    told = scored("--benchmark", benchmark, "--results", benchmark / "truth")
    for row in told["results"]:
        assert (row["system"], row["right"], row["recovered"]) == ("truth", 60, 1)
        assert [row[name] for name in ("wrong", "margin", "changed_margin", "recovered_wrong")] == [None] * 4
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    asked = ("--benchmark", benchmark, "--results", benchmark / "truth", "--system", "A person")
    tables = invoke(*asked, "--report", page, "--sheet", sheet).stdout
    for text in (tables, page.read_text()):
        assert "A person" in text and "n/a" in text and told["cases_digest"] in text
    with Image.open(sheet) as image:
        assert image.getpixel((image.width - 1, image.height // 4)) == (255, 255, 255)  # no wrong pair to show


def test_everything_that_is_wrong_with_results_is_named(benchmark, copies):
    missing, broken, oblong, double, *_ = (copies / f"{record['id']}.png" for record in records(benchmark))
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("RGB", (64, 32)).save(oblong)
    shutil.copy(double, double.with_suffix(".bmp"))
    (copies / "objects_tone_007.png").write_bytes(double.read_bytes())
    (copies / "notes.txt").write_text("not a picture")
    asked = ("--benchmark", benchmark, "--results", copies)
    said = invoke(*asked, exit_code=2).output
    for line in (
        f"{missing.name} is missing",
        f"{broken.name}: ",
        f"{oblong.name}: It has 64 x 32 pixels",
        f"{double.stem}.bmp and {double.name} are one result too many",
        "objects_tone_007.png belongs to no case",
        "--partial",
    ):
        assert line in said
    assert "notes.txt" not in said
    told = invoke(*asked, "--partial")
    assert "5 of 9 cases are scored" in told.stderr and missing.name in told.stderr
    assert "mirror (2 of 3)" in told.stdout and "recolour+scale" in told.stdout and "tone" not in told.stdout


def test_many_faults_are_counted(benchmark, tmp_path):
    plan = Plan(families=("mirror",), cases=30, size=16)
    export(tmp_path / "many", plan)
    (tmp_path / "none").mkdir()
    said = invoke("--benchmark", tmp_path / "many", "--results", tmp_path / "none", "--partial", exit_code=2).output
    assert said.count("is missing") == 20 and "And 10 more" in said and "nothing else to score" in said


def test_results_come_as_people_have_them(benchmark, copies):
    """Another size, another format, transparency: scored, and told once; other cases' results are nobody's fault."""
    expected = of_files(benchmark, copies)[0].scores.right
    for record in records(benchmark)[:3]:
        with Image.open(copies / f"{record['id']}.png") as image:
            image.resize((64, 64), Image.Resampling.NEAREST).save(copies / f"{record['id']}.webp", lossless=True)
            image.putalpha(254)
            image.save(copies / f"{record['id']}.wrong.png")
        (copies / f"{record['id']}.png").unlink()
    told = invoke("--json", "--benchmark", benchmark, "--results", copies, "--family", "tone")
    (row,) = json.loads(told.stdout)["results"]
    assert row["right"] > expected - 3 and abs(row["margin"]) < 3
    assert "objects_tone_000.webp and 2 more are resized to 32 x 32" in told.stderr
    assert "objects_tone_000.wrong.png and 2 more are put on white" in told.stderr


def test_a_benchmark_that_is_not_what_was_exported_is_refused(benchmark, tmp_path):
    def spoilt(name: str) -> Path:
        return Path(shutil.copytree(benchmark, tmp_path / name))

    head = json.loads((benchmark / "benchmark.json").read_text())
    newer, fewer, painted, torn = map(spoilt, ("newer", "fewer", "painted", "torn"))
    (newer / "benchmark.json").write_text(json.dumps(head | {"version": VERSION + 1}))
    lines = (fewer / "metadata.jsonl").read_text().splitlines(keepends=True)
    (fewer / "metadata.jsonl").write_text("".join(lines[1:]))
    shutil.copy(painted / "query" / "objects_tone_000.png", painted / "truth" / "objects_tone_000.png")
    (torn / "alternatives" / "objects_tone_000.3.png").unlink()
    for folder, named in (
        (newer, f"version {VERSION + 1}"),
        (fewer, "metadata.jsonl is not the one"),
        (painted, "objects_tone_000"),
        (torn, "objects_tone_000.3.png"),
        (tmp_path / "nowhere", "There is no benchmark"),
    ):
        with pytest.raises(UsageError, match=named):
            list(evaluate(BASELINES["copy"], Benchmark.open(folder), PLAN))


def test_the_table_of_a_card_is_printed(benchmark, copies):
    text = invoke("--benchmark", benchmark, "--results", copies, "--markdown", "--system", "Copies").stdout
    row = of_files(benchmark, copies)[0].scores
    assert text.startswith("Copies, `objects`: ")
    assert f"| tone | {row.right:.1f} | {row.wrong:.1f} | 0.0 | 0.0 | {row.copy:.1f} | {row.oracle:.1f} | " in text
    assert "| *composition* | | |" in text and "by split" not in text
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 + 3 + 1 and set(tables) == {12}


def test_several_splits_are_compared_in_the_card():
    few = ("--cases", 1, "--size", 32, "--family", "mirror", "--family", "tone")
    text = invoke("--baseline", "copy", "--split", "all", *few, "--markdown").stdout
    heads = [f"{split}: margin, recovered" for split in SPLITS]
    assert f"| family | {' | '.join(heads)} (wrong pair) |" in text
    assert text.rstrip().splitlines()[-1].startswith("| mirror | 0.0 dB, ") and text.rstrip().endswith("| - |")
    assert text.count("held-out") == 0 and SPLITS["objects"].told in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--results", "."], "--benchmark"),
        (["--export", "x", "--steps", "2"], "--steps"),
        (["--export", "x", "--results", "."], "--results"),
        (["--results", ".", "--baseline", "copy"], "--baseline"),
        (["--baseline", "copy", "--adapter", "a"], "--adapter"),
        (["--baseline", "guess"], "guess"),
        (["--partial"], "--results"),
        (["--json", "--markdown"], "--markdown"),
        (["--benchmark", "BENCHMARK", "--size", "64"], "--size"),
        (["--benchmark", "BENCHMARK", "--baseline", "copy", "--family", "pose"], "pose in objects"),
        (["--benchmark", "BENCHMARK", "--baseline", "copy", "--cases", "4"], "only 3"),
        (["--benchmark", "BENCHMARK", "--results", "nowhere"], "nowhere"),
        (["--export", "BENCHMARK"], "empty"),
        (["--baseline", "copy", "--save-results", "BENCHMARK"], "empty"),
        (["--export", "/dev/null/benchmark"], "benchmark"),
    ],
)
def test_what_cannot_be_asked_is_told(benchmark, arguments, named):
    assert named in invoke(*(str(benchmark) if word == "BENCHMARK" else word for word in arguments), exit_code=2).output


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("training.evaluation.export._card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(tmp_path / "benchmark", replace(PLAN, families=("mirror",), cases=1))
    assert not list(tmp_path.iterdir())


def test_another_benchmark_has_another_version():
    """Thumbnails of a few cases; numbers measured on others do not compare."""
    pinned = json.loads(PINNED.read_text())
    shown = {"version": VERSION, "cases": {family: _thumbnail(family) for family in EVERY_FAMILY}}
    new = f"Give VERSION another number if this one was released, and write {PINNED.name} anew:\n{json.dumps(shown)}"
    assert pinned["version"] == VERSION and pinned["cases"].keys() == EVERY_FAMILY.keys(), new
    for family, levels in shown["cases"].items():
        assert torch.tensor(levels).sub(torch.tensor(pinned["cases"][family])).abs().max() <= 1, new


def _thumbnail(family: str) -> list[int]:
    """4 x 4 levels of a truth and of its pair's after, in 8 bits: last bits of a rendering do not count."""
    case = next(draw_trials(family, "objects", count=1, seed=0, size=32))[0]
    small = torch.nn.functional.avg_pool2d(torch.stack([case.after, case.truth]).mean(1, keepdim=True), 8)
    return (small * 255).round().int().flatten().tolist()
