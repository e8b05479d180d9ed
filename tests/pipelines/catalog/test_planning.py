"""`edit-transfer apply --plan`: what fits which GPU, told before any weights are there."""

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from infra.cli import app
from pipelines.catalog import planning
from pipelines.transfer import bases
from tests.fullsize import FLUX1_VAE, FLUX2_VAE, TRANSFORMERS, class_of

GB = 10**9


def configured(folder: Path, name: str, **settings: int) -> Path:
    """A base's folder as it is before its weights are downloaded."""
    kind = class_of(name)
    vae = FLUX1_VAE if kind == "FluxTransformer2DModel" else FLUX2_VAE
    parts = {
        "transformer": TRANSFORMERS[name] | {"_class_name": kind},
        "vae": vae | {"_class_name": bases.KINDS[kind].vae, "sample_size": 1024},
    }
    for part, config in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "scheduler").mkdir()
    if settings:
        (folder / "edit_transfer.json").write_text(json.dumps(settings))
    return folder


def asked(*arguments: object):
    return CliRunner().invoke(app, ["apply", *map(str, arguments)])


def told(*arguments: object) -> dict:
    result = asked("--plan", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def totals(card: dict) -> dict[str, int]:
    return {way["way"]: way["total"] for way in card["ways"]}


def fitting(card: dict) -> set[str]:
    return {way["way"] for way in card["ways"] if way["largest_batch"]}


@pytest.fixture(scope="module")
def dev(tmp_path_factory) -> dict:
    """The plan for FLUX.1-dev."""
    return told("--base", configured(tmp_path_factory.mktemp("bases") / "FLUX.1-dev", "FLUX.1-dev"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_flux1_dev_has_the_weights_it_is_known_for(dev):
    way = dev["ways"][0]
    assert way["transformer"] == 2 * 11_901_408_320
    assert way["pair"] == 2 * way["query"] == 57 * 2 * 2 * 4096 * 3072 * 2


def test_flux1_dev_fits_40_gb_in_bfloat16_and_24_gb_in_eight_bits(dev):
    small, middle, large = dev["cards"]
    assert [card["memory"] for card in dev["cards"]] == [24 * GB, 40 * GB, 80 * GB]
    assert "bfloat16" in fitting(middle) and "bfloat16" not in fitting(small)
    assert fitting(small) == {"float8", "int8", "int4", "bfloat16, offload"}
    assert small["recommended"]["flags"] == "--weights float8 --batch-size 1"
    assert middle["recommended"]["flags"] == "--batch-size 2"
    assert large["recommended"]["flags"] == ""
    for card in dev["cards"]:
        for way in card["ways"]:
            assert (way["missing"] > 0) == (way["total"] > card["memory"]) == (way["largest_batch"] == 0)


def test_people_see_a_table_for_each_card(tmp_path):
    base = configured(tmp_path / "base", "FLUX.2-klein-4B")
    shown = asked("--plan", "--base", base)
    assert shown.exit_code == 0
    for told in ("24 GB", "40 GB", "80 GB", "never loaded", "7.75 GB in bfloat16", "float8", "int4", "offload", "fits"):
        assert told in shown.stdout
    assert f"edit-transfer apply --base {base}" in shown.stdout.replace("\n", "")
    assert not list(base.rglob("*.safetensors"))


def test_larger_batches_take_more(tiny_base):
    small, large = (
        totals(told("--base", tiny_base, "--memory", 1, *more)["cards"][0]) for more in ((), ("--batch-size", 4))
    )
    assert all(large[way] > small[way] for way in small)


def test_rank_and_pairs_are_those_of_the_adapter(tiny_base, monkeypatch):
    about = {"rank": 32, "attention": "full", "compact": 2, "exemplars": ["one", "two", "three"]}
    monkeypatch.setattr(planning.registry, "resolve", lambda *_: type("Version", (), {"about": about}))
    plain, wearing = told("--base", tiny_base), told("--base", tiny_base, "--adapter", "lift@2:0.7")
    assert (wearing["ranks"], wearing["attention"]) == ([32], "full")
    assert wearing["ways"][0]["adapter"] == 2 * plain["ways"][0]["adapter"]
    assert [told["ways"][0]["pairs"] for told in (plain, wearing)] == [1, 3]


def test_the_gpu_at_hand_is_looked_at(tiny_base, monkeypatch):
    free = [30 * GB, 20 * GB]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 40 * GB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    [card] = told("--base", tiny_base)["cards"]
    assert (card["name"], card["memory"]) == ("A100", 20 * GB)


def test_float8_is_for_gpus_that_multiply_in_it(dev):
    plan = planning.plan(None, (), "memory://registry", None, [24])
    footprint = {planning.way(fit.footprint.tuning): fit.footprint for fit in plan.fits[0]}
    ways = [footprint["float8"], footprint["int8"]]
    for float8, expected in ((True, "float8"), (False, "int8")):
        fits = [planning.Fit(planning.Card(24 * GB, "GPU", float8), way, 8, 8) for way in ways]
        assert planning.flags(planning.recommended(fits)) == f"--weights {expected}"


def test_what_lacks_is_told_where_nothing_fits(tiny_base):
    result = asked("--plan", "--base", tiny_base, "--memory", 1)
    assert result.exit_code == 0 and re.search(r"Does not fit: .* lacks \d", result.stdout)
    plan = told("--base", tiny_base, "--memory", 1)
    assert plan["cards"][0]["recommended"] is None
    assert all(way["missing"] > 0 for way in plan["cards"][0]["ways"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--plan", "--memory", "0"), "--memory"),
        (("--plan", "--memory", "inf"), "--memory 24"),
        (("--memory", "24"), "it goes with --plan"),
        (("--plan", "--base", "/nowhere"), "no base at /nowhere"),
        (("--plan", "--adapter", "nobody", "--registry", "memory://nothing"), "nobody"),
        ((), "Missing option '--input'"),
        (("--input", "photos"), "Missing option '--output'"),
    ],
)
def test_bad_usage_is_told(arguments, sentence):
    result = asked(*arguments)
    assert result.exit_code == 2 and sentence in result.output


def test_a_base_without_its_transformer_is_told(tmp_path):
    base = configured(tmp_path / "base", "FLUX.2-klein-4B")
    (base / "transformer" / "config.json").unlink()
    result = asked("--plan", "--base", base)
    assert result.exit_code == 2 and "transformer/config.json" in result.output


def test_a_plan_is_no_job_for_a_cluster():
    result = CliRunner().invoke(app, ["submit", "--plan"])
    assert result.exit_code == 2 and "apply --plan" in result.output
