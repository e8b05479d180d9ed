"""The benchmark measures what it says, and the bundled base reads pairs."""

import json

import pytest
import torch
from typer.testing import CliRunner

from infra.cli import app
from training.evaluation.metrics import changed_region, nearest, psnr
from training.evaluation.suite import draw_cases
from training.scenes import FAMILIES


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
    assert nearest(truth + 0.4, torch.stack([truth, truth + 0.5, truth + 1])) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_cases_are_seeded_and_the_wrong_pair_is_wrong(name):
    case, again = (next(draw_cases(FAMILIES[name], 1, seed=3)) for _ in range(2))
    assert torch.equal(case.truth, again.truth)
    assert not torch.equal(case.after, case.wrong_after)
    others = case.alternatives[1:]
    assert ((others - case.truth).abs().amax((1, 2, 3)) > 0.01).all()


def test_the_bundled_base_reads_background_and_tone_from_the_pair(tmp_path):
    """Held-out objects and parameters: at least 4 dB better with the right pair than with a wrong one."""
    sheet = tmp_path / "sheet.png"
    command = [
        "evaluate",
        "--json",
        "--cases",
        "12",
        "--family",
        "background",
        "--family",
        "tone",
        "--sheet",
        str(sheet),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    for name in ("background", "tone"):
        assert report["families"][name]["margin"] >= 4
        assert report["families"][name]["recovered"] > 3 * report["families"][name]["chance"]
    assert sheet.stat().st_size > 1000


def test_unknown_suites_and_families_are_named():
    for arguments, name in ((["--suite", "moon"], "moon"), (["--family", "teleport"], "teleport")):
        result = CliRunner().invoke(app, ["evaluate", *arguments])
        assert result.exit_code == 2 and name in result.output
