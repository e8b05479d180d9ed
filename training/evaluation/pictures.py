"""Pictures between files, the model and the metrics: what is measured has 8 bits, as what people look at has."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] to an RGB image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def eight_bits(pixels: Tensor) -> Tensor:
    """The same pictures (..., H, W) in [0, 1], as they come back from a file."""
    return (pixels * 255).round() / 255
