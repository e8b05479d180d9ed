"""An adapter that was trained on one base, used on its distilled twin: from the command line and by the endpoint."""

import asyncio
import json
import shutil
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import AdapterNotFound
from pipelines.transfer import bases
from pipelines.transfer.bases import PROMPT
from pipelines.transfer.prompts import TOKENS
from serving.app.directory import Directory
from tests.serving.adapters import publish
from tests.tiny import CONTEXT, make_tiny_base, make_tiny_flux1, tiny_transformer


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """`base` and its distilled twin `quick`, and what is neither: of other widths, of another family."""
    folder = tmp_path_factory.mktemp("bases")
    make_tiny_base(folder / "base")
    make_tiny_base(folder / "quick", seed=1)
    (folder / "quick" / "model_index.json").write_text(json.dumps({"is_distilled": True}))
    save_file({TOKENS: torch.ones(1, 3, CONTEXT)}, folder / "quick" / PROMPT)
    shutil.copytree(folder / "base", folder / "deeper")
    type(tiny := tiny_transformer()).from_config(tiny.config, num_layers=3).save_pretrained(
        folder / "deeper" / "transformer"
    )
    make_tiny_flux1(folder / "flux1")
    return folder


@pytest.fixture
def place(family, tmp_path) -> str:
    address = str(tmp_path / "registry")
    publish(address, "lift", family / "base", 0)
    return address


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def twin(family: Path, place: str, trained: str, distilled: str, *options: str):
    return run("bases", "twin", family / trained, family / distilled, "--registry", place, *options)


@pytest.mark.parametrize(
    ("trained", "distilled", "said"),
    [
        ("base", "flux1", "one is a FluxTransformer2DModel, the other a Flux2Transformer2DModel"),
        ("base", "deeper", "layer transformer_blocks.2"),
        ("quick", "base", "is distilled and"),
        ("base", "base", "the same base"),
        ("base", "nowhere", "There is no base"),
    ],
)
def test_what_cannot_be_a_twin_is_one_sentence(family, place, trained, distilled, said):
    told = twin(family, place, trained, distilled)
    assert told.exit_code == 2 and said in told.stderr and "Traceback" not in told.stderr
    assert json.loads(run("bases", "list", "--registry", place, "--json").stdout) == []


def test_an_adapter_is_applied_to_a_declared_twin_and_the_manifest_names_it(
    ray_cluster, family, place, scene, tmp_path
):
    scene(1).save(tmp_path / "photo.png")
    places = ("--input", tmp_path / "photo.png", "--output", tmp_path / "out", "--registry", place)
    apply = ("apply", "--adapter", "lift", "--base", family / "quick", *places)
    refused = run(*apply, "--dry-run")
    assert refused.exit_code == 2 and "edit-transfer bases twin" in refused.stderr
    declared = json.loads(twin(family, place, "base", "quick", "--json").stdout)
    assert declared["deployed"]["revision"] == bases.revision_of(family / "quick")
    told = run(*apply, "--workers", "1", "--json")
    assert told.exit_code == 0, told.stderr
    [row] = ds.dataset(tmp_path / "out" / "manifest").to_table().to_pylist()
    assert row["status"] == "done", row["error"]
    assert row["base"] == str(family / "quick") and (row["adapter"], row["adapter_version"]) == ("lift", 1)
    assert "quick" in run("bases", "list", "--registry", place).stdout
    assert run("bases", "untwin", family / "base", declared["deployed"]["revision"], "--registry", place).exit_code == 0
    assert run(*apply, "--dry-run").exit_code == 2


def test_the_endpoint_takes_it_from_then_on(family, place):
    async def scenario() -> None:
        directory = Directory(place, bases.revision_of(family / "quick"), 0.0)
        with pytest.raises(AdapterNotFound, match="bases twin"):
            await directory.find("lift@1")
        assert twin(family, place, "base", "quick").exit_code == 0
        assert (await directory.find("lift@1:0.5")).told == "lift@1:0.5"

    asyncio.run(scenario())
