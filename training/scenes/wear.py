"""What cameras and files do to pictures: noise and JPEG. B pictures, H rows, W columns."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from training.scenes.uniform import Uniform

NOISE = 0.06  # standard deviation, at most
BLOCK = 8
COARSEST = 0.12  # step of JPEG's quantiser at frequency 0, at most; it grows with the frequency

_TO_LUMA = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))  # JFIF 1.02, section 4


def wear(images: Tensor, uniform: Uniform, share: float) -> Tensor:
    """The pictures (B, 3, H, W) in [0, 1] with noise in a `share` of them, and as JPEGs in as many others; sides are
    multiples of 8."""
    if not share:
        return images
    count = len(images)
    noise, coarse = (amount * uniform(count) * (uniform(count) < share) for amount in (NOISE, COARSEST))
    shape = (slice(None), None, None, None)
    grain = torch.randn(images.shape, generator=uniform.generator, device=images.device)
    noisy = (images + noise[shape] * grain).clamp(0, 1)
    return torch.where((coarse > 0)[shape], _compressed(noisy, coarse.clamp(min=1e-3)), noisy)


def _compressed(images: Tensor, coarse: Tensor) -> Tensor:
    """Cosine transforms of 8 x 8 blocks of luma and chroma, rounded to steps (B,) that grow with the frequency."""
    cosines, steps = (part.to(images.device) for part in _transform())
    colours = images.new_tensor(_TO_LUMA)
    blocks = torch.einsum("dc,bchw->bdhw", colours, images)
    blocks = blocks.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))  # B, C, rows, 8, columns, 8
    waves = torch.einsum("uy,bcryks,vs->bcrukv", cosines, blocks, cosines)
    quantum = coarse[:, None, None, None, None, None] * steps[:, None]
    waves = (waves / quantum).round() * quantum
    blocks = torch.einsum("uy,bcrukv,vs->bcryks", cosines, waves, cosines)
    return torch.einsum("cd,bdhw->bchw", colours.inverse(), blocks.flatten(4, 5).flatten(2, 3)).clamp(0, 1)


@lru_cache(maxsize=1)
def _transform() -> tuple[Tensor, Tensor]:
    """The orthonormal DCT-II matrix (8, 8), and how much coarser than at frequency 0 it is rounded."""
    n = torch.arange(BLOCK, dtype=torch.float32)
    cosines = torch.cos((2 * n + 1) * n[:, None] * math.pi / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    cosines[0] *= 0.5**0.5
    return cosines, 1 + 0.7 * (n[:, None] + n)
