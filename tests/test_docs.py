"""What the documents name exists."""

import re
from pathlib import Path

import pytest
import typer.main

from infra.cli import app

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
