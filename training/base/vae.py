"""Training the miniature's autoencoder on rendered scenes and photographs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from training.base.architecture import PANEL
from training.base.loop import Loss, generator_for
from training.scenes import FAMILIES, PRODUCTS, draw_tuples

KL_WEIGHT = 1e-4  # keeps the latents compact; per latent value
EDGE_WEIGHT = 0.5  # of the error of neighbouring differences


def draw_images(count: int, generator: torch.Generator, size: tuple[int, int] = (PANEL, PANEL)) -> Tensor:
    """Training images B3HW in [0, 1]: after images of all families, of all products, and photographs."""
    families = list(FAMILIES.values())
    per_family = -(-count // len(families))
    images = [
        draw_tuples(family, per_family, 1, size, generator, classes=tuple(PRODUCTS)).after.flatten(0, 1)
        for family in families
    ]
    return torch.cat(images)[:count]


def vae_loss(model: AutoencoderKLFlux2, batch: int, seed: int) -> Loss:
    """Absolute error of pixels and of edges, and a small KL term (Kingma & Welling, arXiv 1312.6114)."""

    def loss(step: int) -> tuple[Tensor, int]:
        device = model.device
        images = draw_images(batch, generator_for(seed, step, device)) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = model.encode(images).latent_dist
            decoded = model.decode(posterior.sample()).sample
        decoded = decoded.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return F.l1_loss(decoded, images) + EDGE_WEIGHT * _edge_loss(decoded, images) + KL_WEIGHT * kl, batch

    return loss


def _edge_loss(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))


@torch.no_grad()
def fit_normalisation(model: AutoencoderKLFlux2, seed: int, images: int = 2048) -> None:
    """Set the running statistics that FLUX.2 normalises packed latents with."""
    packed = torch.cat([_packed(model, seed, step) for step in range(images // 64)])
    model.bn.running_mean.copy_(packed.mean((0, 2, 3)))
    model.bn.running_var.copy_(packed.var((0, 2, 3)))


def _packed(model: AutoencoderKLFlux2, seed: int, step: int) -> Tensor:
    images = draw_images(64, generator_for(seed + 1, step, model.device)) * 2 - 1
    return F.pixel_unshuffle(model.encode(images).latent_dist.mode(), 2)


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKLFlux2, draw: Callable[[], Tensor]) -> float:
    """PSNR in dB of decoded against original images."""
    images = draw()
    decoded = model.decode(model.encode(images * 2 - 1).latent_dist.mode()).sample.clamp(-1, 1)
    error = F.mse_loss((decoded + 1) / 2, images)
    return float(-10 * torch.log10(error))
