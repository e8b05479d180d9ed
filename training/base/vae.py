"""Training the decoder of the miniature's autoencoder on rendered scenes and photographs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from training.base.architecture import PANEL
from training.loop import Loss, generator_for
from training.scenes import FAMILIES, draw_tuples

EDGE_WEIGHT = 0.5  # of the error of neighbouring differences
LATENT_NOISE = 0.04  # the transformer's latents are not perfect either


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
