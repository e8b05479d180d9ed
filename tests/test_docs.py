"""What the documents name exists."""

import re
from math import isqrt, prod
from pathlib import Path

import pytest
import typer.main
from safetensors import safe_open

from infra.cli import app
from pipelines.transfer import bases

ROOT = Path(__file__).parents[1]
DOCUMENTS = [path for path in ROOT.rglob("*.md") if not {".venv", "demo-output"} & set(path.relative_to(ROOT).parts)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert target.startswith("http") or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document):
    for name in re.findall(r"`((?:infra|pipelines|training|serving|tests)/[\w/.]+\.py)`", document.read_text()):
        assert (ROOT / name).exists(), name


def test_named_commands_and_options_exist():
    commands = typer.main.get_command(app).commands
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    named = re.findall(r"edit-transfer ([a-z]+)(?: ([a-z]+))?((?:[^\n`|]*?--[a-z-]+)*)", text)
    assert named
    for command, member, options in named:
        asked = commands[command]
        if hasattr(asked, "commands") and member:
            asked = asked.commands[member]
        known = {option for parameter in asked.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known


def test_the_bundled_base_is_as_large_as_the_readme_says():
    parameters = 0
    for path in (bases.BUNDLED / "transformer").glob("*.safetensors"):
        with safe_open(path, "np") as file:
            parameters += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    side = isqrt(bases.settings_of(bases.BUNDLED).max_area)
    text = (ROOT / "README.md").read_text()
    assert f"{parameters / 1e6:.0f} million parameters, {side}-pixel panels" in text
    assert f"the miniature on {side} x {side} pixels" in text
