"""The making of the miniature: the written encoder, the seeded loop, resuming."""

import pytest
import torch
from torch import nn

from pipelines.transfer.flux2 import Flux2
from training.base.architecture import new_scheduler, new_transformer, new_vae
from training.base.blockpca import start_decoder, write_encoder
from training.base.loop import Plan, Trainer, generator_for
from training.base.transfer import transfer_loss
from training.base.vae import draw_images, reconstruction_psnr


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return draw_images(300, generator_for(0, 0, torch.device("cpu")))


@pytest.fixture(scope="module")
def vae(images):
    model = new_vae().eval()
    write_encoder(model, images)
    start_decoder(model, images[:100])
    return model


@torch.no_grad()
def test_the_written_encoder_is_linear_and_local(vae, images):
    def encode(x):
        return vae.encode(x).latent_dist.mode()

    a, b = images[:4], images[4:8]
    middle = encode((a + b) / 2)
    torch.testing.assert_close(middle, (encode(a) + encode(b)) / 2, atol=0.05, rtol=0.02)
    touched = a.clone()
    touched[:, :, 8:16, 16:24] += 0.5
    moved = (encode(touched) - encode(a)).abs().amax(1)
    assert moved[:, 1, 2].min() > 10 * moved.flatten(1).sort(1).values[:, -2].max()


@torch.no_grad()
def test_latents_lose_little_and_start_well(vae, images):
    """Block mean colours from the start; the best linear decoder shows what the latents hold."""
    held = draw_images(60, generator_for(9, 0, torch.device("cpu")))
    assert reconstruction_psnr(vae, held) > 20
    latents = vae.encode(images).latent_dist.mode().transpose(0, 1).flatten(1).T
    blocks = nn.functional.pixel_unshuffle(images, 8).transpose(0, 1).flatten(1).T
    decoder = torch.linalg.lstsq(latents, blocks).solution
    test = vae.encode(held).latent_dist.mode()
    rebuilt = nn.functional.pixel_shuffle(torch.einsum("bchw,co->bohw", test, decoder), 8)
    psnr = -10 * torch.log10(((rebuilt - held) / 2).square().mean((1, 2, 3)))
    assert psnr.mean() > 30


def _train(folder, steps: int, seed: int = 0) -> dict[str, torch.Tensor]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    trainer = Trainer(model, Plan(steps=steps, rate=1e-2, warmup=1, cooldown=0.0, checkpoint_every=3), folder)

    def loss(step: int):
        x = torch.randn(16, 4, generator=generator_for(1, step, torch.device("cpu")))
        return (model(x) - x[:, :2]).square().mean(), 16

    for _ in trainer.run(loss):
        pass
    return {k: v.clone() for k, v in trainer.average.state_dict().items()} | {"steps": torch.tensor(trainer.step)}


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    _train(tmp_path / "stopped", steps=6)
    resumed = _train(tmp_path / "stopped", steps=9, seed=5)  # the seed of the weights no longer matters
    straight = _train(tmp_path / "straight", steps=9)
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


def test_the_loss_is_seeded_and_teaches_every_trained_part(vae):
    family = Flux2(new_transformer(), vae.requires_grad_(False), new_scheduler())
    nn.init.normal_(family.transformer.proj_out.weight, std=0.02)
    for modulation in (
        family.transformer.double_stream_modulation_img,
        family.transformer.single_stream_modulation,
    ):
        nn.init.normal_(modulation.linear.weight, std=0.02)
    loss = transfer_loss(family, seed=3)
    value, samples = loss(0)
    value.backward()
    assert samples == 96
    assert torch.equal(loss(0)[0], loss(0)[0]) and not torch.equal(loss(0)[0], loss(1)[0])
    silent = [name for name, p in family.transformer.named_parameters() if p.grad is None or not p.grad.any()]
    text = ("context", "add_", "added_", "txt", "to_add_out")
    assert all(any(word in name for word in text) for name in silent)  # the miniature is trained without text
