"""Image metrics. Images are (3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

CHANGED = 0.05  # a pixel counts as changed when a channel moves by more than this
CEILING_DB = 60.0  # of a perfect match, whose PSNR would be infinite
WINDOW = 7  # pixels of the side of SSIM's window: a ninth of a picture of 64


def psnr(image: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 60 at most; `where` (H, W) selects pixels. NaN if it selects none."""
    error = (image - truth).square().mean(0)
    mean = error[where].mean() if where is not None else error.mean()
    return float((-10 * torch.log10(mean)).clamp(max=CEILING_DB))


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """(H, W) structural similarity about every pixel, 1 where the pictures are equal; the mean over the channels.

    NaN everywhere where scikit-image (the `scenes` extra) is not installed: all else can be measured without it.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return torch.full_like(image[0], torch.nan)
    _, similarity = structural_similarity(
        image.double().numpy(), truth.double().numpy(), win_size=WINDOW, channel_axis=0, data_range=1.0, full=True
    )
    return torch.from_numpy(similarity).mean(0)


def changed_region(query: Tensor, truth: Tensor) -> Tensor:
    """(H, W) bool: pixels that the edit changes."""
    return (query - truth).abs().amax(0) > CHANGED


def nearest(image: Tensor, candidates: Tensor) -> Tensor:
    """(K,) bool: which of the candidates (K, 3, H, W) have the least squared error; equal candidates tie."""
    errors = (candidates - image).square().mean((1, 2, 3))
    return torch.isclose(errors, errors.min(), rtol=1e-5, atol=0)


def share_of_first(image: Tensor, candidates: Tensor) -> float:
    """1 if the first candidate alone is nearest, 0 if it is not, a part of 1 if it shares the place with others."""
    best = nearest(image, candidates)
    return float(best[0] / best.sum())
