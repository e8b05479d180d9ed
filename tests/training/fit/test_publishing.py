"""What a training publishes beside its weights."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from infra import registry
from infra.registry.layout import PROMPT
from pipelines.transfer.prompts import TOKENS
from tests.tiny import CONTEXT
from training.fit.publishing import Work, publish
from training.fit.run import Fitted
from training.fit.settings import Settings

SCORE = {"balanced": 20.0, "copy": 10.0, "changed": 15.0}
OUTCOME = {
    "held_out": [],
    "scored": [],
    "shown": [],
    "samples": 8,
    "score": SCORE,
    "curve": [{"step": 8, "loss": 0.5} | SCORE],
}


@pytest.fixture
def work(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    settings = Settings(rank=4, rate=1e-3, steps=8, attention="prefix")
    return Work(name="lift", base=str(base), settings=settings, pairs=(), kept=())


def test_the_text_that_an_adapter_was_trained_with_goes_with_it(work, tmp_path):
    address, fitted = str(tmp_path / "registry"), Fitted(b"weights", b"samples", OUTCOME)
    silent = work.publication
    assert PROMPT not in publish(address, work, fitted, 1.0).files
    text = save({TOKENS: torch.zeros(1, 2, CONTEXT)})
    (tmp_path / "base" / PROMPT).write_bytes(text)
    assert work.publication != silent, "with another text it is another adapter"
    assert registry.read_file(publish(address, work, fitted, 1.0), PROMPT) == text


def test_an_adapter_trained_with_compact_pairs_says_so(work, tmp_path):
    address, fitted = str(tmp_path / "registry"), Fitted(b"weights", b"samples", OUTCOME)
    plain = publish(address, work, fitted, 1.0)
    assert "compact" not in plain.about and b"compact" not in registry.read_file(plain, "card.md")
    compact = replace(work, settings=replace(work.settings, compact=2))
    assert compact.publication != work.publication
    version = publish(address, compact, fitted, 1.0)
    assert version.about["compact"] == 2 and version.number == 2
    assert b"compact: at 1/2 of the side" in registry.read_file(version, "card.md")
