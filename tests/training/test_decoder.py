"""Crisp pictures: what their loss prefers, and a decoder that learns from its own transformer's results."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipelines.transfer import Editor
from pipelines.transfer.bases import BUNDLED
from tests.tiny import tiny_transformer
from training.base import decoder
from training.base.crisp import decoded_loss, picture_loss
from training.loop import generator_for

CPU = torch.device("cpu")


def edge(at: float, width: float = 1.0) -> torch.Tensor:
    """A picture that rises from black to white over `width` pixels about column `at`."""
    columns = torch.arange(32.0)
    return (((columns - at) / width).clamp(-0.5, 0.5) * 2).expand(1, 3, 32, 32)


def test_only_with_contrast_a_sharp_guess_is_better_than_a_smear():
    """The truth may be at either of two places: a smear between them is the safest, and nobody wants to see it."""
    truths = edge(12.0), edge(20.0)

    def risk(guess: torch.Tensor, contrast: float) -> float:
        return float(sum(picture_loss(guess, truth, contrast) for truth in truths))

    smear, sharp = edge(16.0, 8.0), edge(12.0)
    assert risk(smear, 0.0) < risk(sharp, 0.0)
    assert risk(smear, 1.0) > risk(sharp, 1.0)
    assert picture_loss(sharp, sharp, 1.0) == 0


@pytest.fixture
def editor(tmp_path):
    """The bundled autoencoder behind a transformer that knows nothing."""
    for part in ("vae", "scheduler"):
        shutil.copytree(BUNDLED / part, tmp_path / part)
    for name in ("model_index.json", "edit_transfer.json"):
        shutil.copy(BUNDLED / name, tmp_path)
    tiny_transformer().save_pretrained(tmp_path / "transformer")
    return Editor.load(tmp_path, device="cpu", max_area=96 * 96)


def test_the_loss_of_the_decoded_result_vanishes_at_the_true_velocity(editor):
    family = editor.family
    family.vae.requires_grad_(False)
    truth = torch.randn(2, 16, 128, generator=generator_for(0, 0, CPU))
    noise = torch.randn(2, 16, 128, generator=generator_for(0, 1, CPU))
    t = torch.tensor([1.0, 0.5])
    noisy = torch.lerp(truth, noise, t[:, None, None])
    exact = decoded_loss(family, noisy, t, noise - truth, truth, (4, 4))
    velocity = (noise - truth + 0.1).requires_grad_()
    loss = decoded_loss(family, noisy, t, velocity, truth, (4, 4))
    loss.backward()
    assert exact < 1e-4 < loss
    assert velocity.grad is not None and velocity.grad.abs().sum() > 0


@torch.no_grad()
def test_crops_of_tokens_and_of_pixels_show_the_same_place(editor):
    results = decoder.own_results(editor, 4, seed=0)
    again = decoder.own_results(editor, 4, seed=0)
    assert torch.equal(results.tokens, again.tokens) and len(results.tokens) == decoder.QUERIES
    grid, multiple = (6, 6), editor.family.multiple
    for index, token in enumerate((0, 20, 35)):
        corner = decoder._corner(token, grid, generator_for(1, index, CPU))
        row, column = divmod(token, 6)
        assert 0 <= row - corner[0] < decoder.CROP and 0 <= column - corner[1] < decoder.CROP
        pixels = decoder._pixels_of(results.pictures[0], multiple, corner)
        tokens = decoder._tokens_of(results.true_tokens[0], grid, corner)
        torch.testing.assert_close(editor.family.encode(pixels[None]), tokens, atol=0.05, rtol=0.05)


def test_the_decoder_learns_and_nothing_else_does(editor, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "QUERIES", 2)
    before = {name: weight.clone() for name, weight in editor.family.vae.state_dict().items()}
    made = tmp_path / "made"
    options = ["--base", str(tmp_path), "--tuples", "4", "--steps", "3", "--batch", "3", "--rate", "1e-3"]
    decoder.main([str(made), *options])
    after = load_file(made / "base" / "vae" / decoder.WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert Editor.load(made / "base", device="cpu").revision != editor.revision
