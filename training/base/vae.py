"""Making the miniature's autoencoder: its encoder is written, its decoder trained on scenes and photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from training.base.architecture import PANEL, new_vae
from training.base.blockpca import start_decoder, write_encoder
from training.base.recipe import Autoencoder
from training.loop import Loss, Schedule, Trainer, generator_for
from training.scenes import FAMILIES, draw_tuples

EDGE_WEIGHT = 0.5  # of the error of neighbouring differences
LATENT_NOISE = 0.04  # the transformer's latents are not perfect either
WRITTEN_WITH = 1200  # images whose directions the encoder keeps
COLOURED_WITH = 300  # of them, with which the decoder starts


def make_autoencoder(
    work: Path, folder: Path, recipe: Autoencoder, seed: int, device: str, say: Callable[[str], None]
) -> None:
    """Write an autoencoder to `folder` when it is done; until then `work` has its checkpoint, and resumes."""
    model = _written(work / "written", seed).to(device)
    schedule = Schedule(steps=recipe.steps, rate=recipe.rate, ema=recipe.ema)
    trainer = Trainer(model.decoder, schedule, work)
    for progress in trainer.run(decoder_loss(model, recipe.batch, seed)):
        say(progress.line())
    model.decoder.load_state_dict(trainer.average.state_dict())
    held = draw_images(128, generator_for(seed + 2, 0, model.device))
    say(f"the autoencoder alone: {reconstruction_psnr(model, held):.2f} dB")
    _save(model, folder)


def _written(folder: Path, seed: int) -> AutoencoderKLFlux2:
    if not (folder / "config.json").exists():
        model = new_vae(seed).eval()
        images = draw_images(WRITTEN_WITH, generator_for(seed + 1, 0, torch.device("cpu")))
        write_encoder(model, images)
        start_decoder(model, images[:COLOURED_WITH])
        _save(model, folder)
    return AutoencoderKLFlux2.from_pretrained(folder)


def _save(model: AutoencoderKLFlux2, folder: Path) -> None:
    """All of it or nothing."""
    partial = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(partial)
    partial.rename(folder)


def draw_images(count: int, generator: torch.Generator, size: tuple[int, int] = (PANEL, PANEL)) -> Tensor:
    """Images B3HW in [-1, 1]: after images of all families, photographs among them."""
    per_family = -(-count // len(FAMILIES))
    images = [draw_tuples(family, per_family, 1, size, generator).after.flatten(0, 1) for family in FAMILIES.values()]
    return torch.cat(images)[:count] * 2 - 1


def decoder_loss(vae: AutoencoderKLFlux2, batch: int, seed: int) -> Loss:
    """Absolute error of pixels and of edges of decoded images; the encoder stays as it is."""

    def loss(step: int) -> tuple[Tensor, int]:
        generator = generator_for(seed, step, vae.device)
        images = draw_images(batch, generator)
        with torch.autocast(vae.device.type, torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(images).latent_dist.mode()
                noise = torch.randn(latents.shape, generator=generator, device=latents.device)
            decoded = vae.decode(latents + LATENT_NOISE * noise).sample.float()
        return F.l1_loss(decoded, images) + EDGE_WEIGHT * _edge_loss(decoded, images), batch

    return loss


def _edge_loss(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKLFlux2, images: Tensor) -> float:
    """Mean PSNR in dB of decoded against original images (B3HW in [-1, 1])."""
    decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float(-10 * torch.log10(((decoded - images) / 2).square().mean((1, 2, 3))).mean())
