"""What a training publishes beside its weights."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save

from infra import registry
from infra.errors import PairError
from infra.registry.layout import PROMPT
from pipelines.pairs.check import check_pairs, usable
from pipelines.transfer.prompts import TOKENS
from tests.tiny import CONTEXT
from training.fit import contest, retrain
from training.fit.publishing import Work, publish
from training.fit.run import Fitted
from training.fit.settings import Settings
from training.scenes import photos

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


def shifted_pairs(folder):
    """A pair whose after is shifted by 4 px to the right, and one that is aligned."""
    folder.mkdir()
    with Image.open(photos.FOLDER / "china.jpg") as image:
        large = image.convert("RGB").resize((300, 220), Image.Resampling.LANCZOS)
    for name, left in {"aligned": 20, "shifted": 16}.items():
        after = large.crop((left, 10, left + 256, 202))
        ImageDraw.Draw(after).ellipse((90, 60, 170, 140), fill=(200, 40, 60 if left == 20 else 200))
        large.crop((20, 10, 276, 202)).save(folder / f"{name}_before.png")
        after.save(folder / f"{name}_after.png")
    (folder / "aligned_before.png").unlink()
    large.transpose(Image.Transpose.FLIP_TOP_BOTTOM).crop((20, 10, 276, 202)).save(folder / "aligned_before.png")
    return str(folder)


def test_mended_pairs_are_published_as_they_were_learned_from(work, tmp_path):
    source, fitted = shifted_pairs(tmp_path / "pairs"), Fitted(b"weights", b"samples", OUTCOME)
    raw, mended = (tuple(usable(check_pairs(source, 10**8, align), source)) for align in (False, True))
    works = [replace(work, pairs=pairs) for pairs in (raw, mended)]
    assert works[0].publication != works[1].publication
    version = publish(str(tmp_path / "registry"), works[1], fitted, 1.0)
    entry = next(pair for pair in version.about["pairs"] if pair["name"] == "shifted")
    [again] = [pair for pair in contest.pairs_of(version, 10**8) if pair.name == "shifted"]
    [learned] = [pair for pair in mended if pair.name == "shifted"]
    assert entry["mended_from"] == list(learned.mended) and entry["after"].endswith("_after.png")
    assert again.after.tobytes() == learned.after.tobytes() and again.before.size == (252, 192)
    assert again.digest == learned.digest == entry["digest"]
    assert {pair.found for pair in raw} == retrain._seen(version), "the files are known, mended or not"
    once_more = publish(str(tmp_path / "other"), replace(works[1], pairs=(again,)), fitted, 1.0)
    assert once_more.about["pairs"][0]["after_sha256"] == entry["after_sha256"]


def test_files_that_change_while_an_adapter_is_trained_are_not_published(work, tmp_path):
    source, fitted = shifted_pairs(tmp_path / "pairs"), Fitted(b"weights", b"samples", OUTCOME)
    changed = replace(work, pairs=tuple(usable(check_pairs(source, 10**8, True), source)))
    Image.new("RGB", (256, 192)).save(tmp_path / "pairs" / "shifted_after.png")
    with pytest.raises(PairError, match="was changed"):
        publish(str(tmp_path / "registry"), changed, fitted, 1.0)
