"""Images of people and tensors of models: sizes, framing, values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infra.errors import PairError
from pipelines.transfer.layout import working_size

FRAMING_TOLERANCE = 0.05  # by how much the proportions of before and after may differ


def fitted(image: Image.Image, multiple: int, max_area: int) -> Image.Image:
    """The image in RGB at its working size, for a base with tokens of `multiple` pixels; raises `ImageError`."""
    return resized(image.convert("RGB"), working_size(*image.size, multiple, max_area))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image in this size, (width, height): itself if it has it."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def check_framing(before: Image.Image, after: Image.Image) -> None:
    """Raise `PairError` unless before and after have the same proportions."""
    ratio = (before.width / before.height) / (after.width / after.height)
    if abs(ratio - 1) > FRAMING_TOLERANCE:
        raise PairError(
            f"The before image is {before.width}x{before.height} and the after image {after.width}x{after.height}: a"
            " pair needs the same framing. Crop both alike."
        )


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size to B3HW in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels_B3HW: Tensor) -> list[Image.Image]:
    """B3HW in [-1, 1] to RGB images."""
    levels = ((pixels_B3HW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(array) for array in levels.permute(0, 2, 3, 1).cpu().numpy()]
