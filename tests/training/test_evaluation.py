"""The benchmark measures what it says, and the bundled base reads pairs."""

import json
import re
from statistics import fmean

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import UsageError
from pipelines.transfer import Editor
from training.evaluation import Plan, evaluate_scenes
from training.evaluation.cases import ALTERNATIVES, WRONG_DISTANCE, draw_edits, draw_trials
from training.evaluation.metrics import changed_region, nearest, psnr, share_of_first, ssim_map
from training.evaluation.pictures import to_image, to_pixels
from training.evaluation.plan import GROUPS, QUERIES, SPLITS, Split, group_of
from training.evaluation.scores import luckiest, mean, score
from training.scenes import EVERY_FAMILY, SUBJECTS, draw_subjects, parameter_distance

DISCRETE = [name for name, family in EVERY_FAMILY.items() if family.choices]
CONTINUOUS = [name for name in EVERY_FAMILY if name not in DISCRETE]


def grey(*levels: float) -> torch.Tensor:
    """Plain pictures (N, 3, 16, 16)."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 16, 16)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def evaluate(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["evaluate", "--json", "--processes", "1", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_psnr_by_hand():
    truth = torch.zeros(3, 4, 4)
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-3)
    assert psnr(truth, truth) == 60
    half = torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    image = truth.clone()
    image[:, 2:] = 1
    assert psnr(image, truth, half) == 60 and psnr(image, truth, ~half) == pytest.approx(0, abs=1e-3)
    assert changed_region(truth, image).equal(~half)


def test_ssim_by_hand():
    """1 for equal pictures; of two plain ones only the term of the means is left: (2ab + c) / (a^2 + b^2 + c)."""
    noisy = torch.rand(3, 32, 32, generator=seeded(0))
    assert torch.allclose(ssim_map(noisy, noisy), torch.ones(32, 32, dtype=torch.float64))
    a, b, c = 0.2, 0.6, 0.01**2
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert torch.allclose(ssim_map(*grey(a, b)).float(), torch.full((16, 16), expected), atol=1e-4)


def test_ssim_is_of_the_place():
    picture = torch.rand(3, 64, 64, generator=seeded(0))
    spoilt = picture.clone()
    spoilt[:, :, 40:] = torch.rand(3, 64, 24, generator=seeded(1))
    similarity = ssim_map(spoilt, picture)
    assert similarity[:, :36].min() > 0.999 and similarity[:, 44:].mean() < 0.5


def test_the_nearest_is_found_and_a_shared_place_counts_in_part():
    truth = grey(0.5)[0]
    assert nearest(truth, grey(0.1, 0.45, 0.9)).tolist() == [False, True, False]
    assert share_of_first(truth, grey(0.45, 0.1)) == 1 and share_of_first(truth, grey(0.1, 0.45)) == 0
    assert share_of_first(truth, grey(0.45, 0.1, 0.45, 0.45)) == pytest.approx(1 / 3)


def test_the_oracle_is_the_best_alternative_but_the_right_one():
    alternatives = grey(0.5, 0.9, 0.6, 0.0)
    assert luckiest(alternatives) is not alternatives[0] and luckiest(alternatives).equal(alternatives[2])


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_cases_are_seeded_and_the_wrong_pair_is_wrong(family):
    drawn, again, other = (next(draw_trials(family, "objects", count=2, seed=seed, size=64)) for seed in (3, 3, 4))
    assert len(drawn) == QUERIES
    for case, same, unlike in zip(drawn, again, other, strict=True):
        assert torch.equal(case.truth, same.truth) and torch.equal(case.after, same.after)
        assert not torch.equal(case.query, unlike.query)
        assert (case.after - case.wrong_after).abs().max() > 0.05
        assert (case.truth - case.query).abs().max() > 0.05
        assert case.alternatives.shape == (EVERY_FAMILY[family].choices or ALTERNATIVES, 3, 64, 64)
        assert len(case.edits) == len(case.alternatives)
    assert drawn[0].before is drawn[1].before and not torch.equal(drawn[0].query, drawn[1].query)


def test_cases_are_what_comes_back_from_files():
    case = next(draw_trials("tone", "objects", count=1, seed=0, size=32))[0]
    for pixels in (case.before, case.after, case.wrong_after, case.query, *case.alternatives):
        assert torch.equal(to_pixels(to_image(pixels)), pixels)


def test_as_many_cases_as_asked_for():
    assert [len(trial) for trial in draw_trials("tone", "seen", count=5, seed=0, size=16)] == [2, 2, 1]


@pytest.mark.parametrize("family", CONTINUOUS)
def test_edits_lie_apart_and_inside_or_outside_the_band(family):
    kind, generator = EVERY_FAMILY[family], seeded(0)
    low, high = kind.band
    for held_out in (False, True):
        for _ in range(8):
            edits = draw_edits(kind, generator, held_out=held_out)
            assert parameter_distance(kind, edits[0], edits[1]) >= WRONG_DISTANCE
            assert parameter_distance(kind, edits[0], edits[1:]).min() > 0.02
            inside = (edits[:, 0] > low) & (edits[:, 0] < high)
            assert inside.tolist() == [held_out] + [False] * (ALTERNATIVES - 1)


@pytest.mark.parametrize("family", DISCRETE)
def test_the_alternatives_of_a_discrete_family_are_exactly_its_choices(family):
    kind, generator = EVERY_FAMILY[family], seeded(0)
    every = torch.linspace(0, 1, kind.choices)
    drawn = [draw_edits(kind, generator, held_out=False)[:, 0] for _ in range(30)]
    assert all(torch.equal(edits.sort().values, every) for edits in drawn)
    assert {float(edits[0]) for edits in drawn} == set(every.tolist())


@pytest.mark.parametrize("family", ["rotate", "recolour", "mirror"])
@pytest.mark.parametrize("guess", [0.0, 0.5])
def test_who_ignores_the_pair_recovers_as_often_as_chance(family, guess):
    """Whatever is always guessed, "hardly any" among it, is nearest to the right parameters once in K cases."""
    kind, generator = EVERY_FAMILY[family], seeded(0)
    guessed, found = torch.full((1, kind.dims), guess), []
    for _ in range(600):
        distances = (draw_edits(kind, generator, held_out=False) - guessed).norm(dim=1)
        best = torch.isclose(distances, distances.min())
        found.append(float(best[0] / best.sum()))
    chance = 1 / (kind.choices or ALTERNATIVES)
    assert fmean(found) == pytest.approx(chance, abs=0.04 if chance < 0.15 else 0.06)


def test_splits_hold_out_what_they_say(monkeypatch):
    """Which subjects and parameters are asked for, split by split; and those subjects are of disjoint classes."""
    asked = []

    def recorded(family, count, size, generator, look):
        asked.append(look)
        return draw_subjects(family, count, size, generator, look)

    monkeypatch.setattr("training.evaluation.cases.draw_subjects", recorded)
    for split, told in SPLITS.items():
        asked.clear()
        next(draw_trials("rotate", split, count=2, seed=0, size=16))
        assert set(asked) == {told.look}
        assert told.look.held_out == (split in ("objects", "busy", "renderer"))
        assert told.look.sprites == (split == "renderer")
        assert told.held_out_parameters == (split == "parameters")
    for training, held_out in SUBJECTS.values():
        assert training and held_out and not set(training) & set(held_out)


def test_discrete_families_have_no_held_out_parameters():
    plan = Plan(splits=("parameters", "seen"), families=("mirror", "tone"))
    assert plan.runs == [("seen", "tone"), ("seen", "mirror"), ("parameters", "tone")]
    with pytest.raises(UsageError, match="mirror"):
        Plan(splits=("parameters",), families=("mirror",))


def test_a_split_may_lack_families(monkeypatch):
    monkeypatch.setitem(SPLITS, "objects", Split(lacks=("pose",), told="without figures"))
    assert Plan(families=("pose", "tone")).runs == [("objects", "tone")]
    with pytest.raises(UsageError, match="pose"):
        Plan(families=("pose",))


def test_every_family_is_in_one_group():
    assert sorted(name for families in GROUPS.values() for name in families) == sorted(EVERY_FAMILY)
    assert group_of("lid") == "reserved" and group_of("tone") == "trained"


def test_perfect_and_lazy_results_score_as_they_should():
    """The truth itself scores 60 dB, 1 and 100 %; the untouched query scores `copy`, and no margin."""
    cases = [case for trial in draw_trials("background", "objects", count=8, seed=0, size=64) for case in trial]
    perfect = mean([score(case, case.truth, case.alternatives[1]) for case in cases])
    assert (perfect.right, perfect.changed, perfect.rest) == (60, 60, 60)
    assert perfect.changed_ssim == perfect.rest_ssim == pytest.approx(1)
    assert (perfect.recovered, perfect.recovered_wrong, perfect.chance) == (1, 0, 1 / ALTERNATIVES)
    assert perfect.oracle >= perfect.wrong and perfect.margin == pytest.approx(60 - perfect.wrong)
    lazy = mean([score(case, case.query, case.query) for case in cases])
    assert lazy.right == lazy.copy and lazy.changed == lazy.changed_copy
    assert lazy.margin == lazy.changed_margin == 0 and lazy.recovered == lazy.recovered_wrong
    assert lazy.rest > 26 > lazy.changed


def test_panels_and_steps_follow_the_base(tiny_base):
    editor = Editor.load(tiny_base, device="cpu")
    assert (Plan().fit(editor).size, Plan().fit(editor).steps) == (64, (2,))
    editor.max_area = 100 * 100
    assert Plan().fit(editor).size == 96
    editor.max_area = 2048 * 2048
    assert Plan().fit(editor).size == 512
    assert Plan(size=128, steps=(1, 4)).fit(editor) == Plan(size=128, steps=(1, 4))
    with pytest.raises(UsageError, match="--size 64"):
        Plan(size=70).fit(editor)
    with pytest.raises(UsageError, match="2048 at most"):
        Plan(size=4096).fit(editor)


def test_a_base_is_scored_at_its_own_size_and_every_number_of_steps(tiny_base):
    editor = Editor.load(tiny_base, device="cpu")
    shown = []
    rows = list(evaluate_scenes(editor, Plan(families=("tone",), cases=3, steps=(1, 2), size=32), shown.append))
    assert [(row.split, row.family, row.group, row.steps) for row in rows] == [
        ("objects", "tone", "trained", 1),
        ("objects", "tone", "trained", 2),
    ]
    assert rows[0].scores.cases == len(shown) == 3 and rows[0].scores.right != rows[1].scores.right
    assert shown[0].right.size == (32, 32)


def test_the_bundled_base_reads_edits_from_the_pair(tmp_path):
    """Held-out objects: much better with the right pair than with a wrong one, where the edit shows."""
    sheet, names = tmp_path / "new" / "sheet.png", ("background", "tone", "recolour", "add")
    told = evaluate("--cases", "8", *(word for name in names for word in ("--family", name)), "--sheet", str(sheet))
    assert [row["family"] for row in told["results"]] == list(names)
    for row in told["results"]:
        assert row["changed_margin"] >= 3
        assert row["recovered"] > 3 * row["chance"] >= 3 * row["recovered_wrong"]
    assert all(row["margin"] >= 4 for row in told["results"][:2])
    with Image.open(sheet) as image:
        assert image.size == (2 * (2 * 6 * told["size"] + 8), 2 * 2 * 4 * told["size"])


def test_the_same_seed_gives_the_same_numbers(tiny_base):
    arguments = ("--base", str(tiny_base), "--cases", "2", "--family", "tone", "--split", "seen", "--steps", "1")
    first, second, other = (evaluate(*arguments, "--seed", seed) for seed in ("1", "1", "2"))
    assert first["results"] == second["results"] != other["results"]
    assert first["adapter"] is None and len(first["base_revision"]) == 64


def test_the_report_is_one_page_with_every_family(tiny_base, tmp_path):
    page = tmp_path / "report.html"
    few = ("--base", str(tiny_base), "--cases", "1", "--size", "32", "--steps", "1", "--steps", "2")
    told = evaluate(*few, "--split", "all", "--report", str(page))
    text = page.read_text()
    assert {row["family"] for row in told["results"]} == set(EVERY_FAMILY)
    assert {row["split"] for row in told["results"]} == set(SPLITS)
    for name in (*EVERY_FAMILY, *GROUPS, told["base_revision"][:12]):
        assert name in text, name
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 6 * len(EVERY_FAMILY)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in text and "@import" not in text


def test_several_steps_are_shown_side_by_side(tiny_base):
    few = ["--cases", "1", "--family", "tone", "--steps", "1", "--steps", "4", "--processes", "1"]
    result = CliRunner().invoke(app, ["evaluate", "--base", str(tiny_base), *few])
    assert result.exit_code == 0, result.output
    assert "by denoising steps" in result.stdout and re.search(r"tone( +[\d.]+){2}( +\d+%){3}", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--suite", "moon"], "moon"),
        (["--family", "teleport"], "teleport"),
        (["--split", "everything"], "everything"),
        (["--steps", "0"], "steps"),
        (["--cases", "0"], "cases"),
        (["--base", "TINY", "--size", "70", "--family", "tone"], "--size 64"),
        (["--device", "abacus"], "abacus"),
        (["--adapter", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--report", "/dev/null/page.html"], "page.html"),
    ],
)
def test_what_cannot_be_measured_is_named(tiny_base, arguments, named):
    typed = [str(tiny_base) if word == "TINY" else word for word in arguments]
    result = CliRunner().invoke(app, ["evaluate", *typed])
    assert result.exit_code == 2 and named in result.output
