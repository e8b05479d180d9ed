"""Image metrics. Images are (3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

CHANGED = 0.05  # a pixel counts as changed when a channel moves by more than this
CEILING_DB = 60.0  # of a perfect match, whose PSNR would be infinite


def psnr(image: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 60 at most; `where` (H, W) selects pixels. NaN if it selects none."""
    error = (image - truth).square().mean(0)
    mean = error[where].mean() if where is not None else error.mean()
    return float((-10 * torch.log10(mean)).clamp(max=CEILING_DB))


def changed_region(query: Tensor, truth: Tensor) -> Tensor:
    """(H, W) bool: pixels that the edit changes."""
    return (query - truth).abs().amax(0) > CHANGED


def nearest(image: Tensor, candidates: Tensor) -> int:
    """Index of the candidate (K, 3, H, W) with the least squared error."""
    return int((candidates - image).square().mean((1, 2, 3)).argmin())
