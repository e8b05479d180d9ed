"""Whether a pair differs by compression or noise alone.

Noise leaves the mean of an area as it is, or changes it as little as a JPEG of the same strength does in that place.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipelines.pairs.blocks import Array

STRONG = 8.0  # levels out of 255, root of the mean square: who changes a picture so much means it,
QUALITIES = (90, 60, 30)  # unless a JPEG of these does so, too
PLAIN = 48.0  # levels by which the mean of 8x8 pixels changes in an edit, whatever the noise
BLOCK = 8  # pixels of the side of the smallest areas
AREAS = (1, 4, 16)  # blocks of the side of an area
FAINT = 1.25  # levels: rounding and conversion of colours change the mean of a picture by less
LIKELY = 6.0  # standard deviations that the mean of an area stays within
USUAL = 2.0  # times what a JPEG changes in the same place or beside it
SHARPER = 0.15  # correlation of the difference with fine detail, beyond a JPEG's: an edit blurred or sharpened it


def noise_alone(before: Image.Image, after: Image.Image, resampled: bool = False) -> bool:
    """Whether two pictures of one size differ by no more than weak noise, such as another JPEG compression leaves;
    `resampled` says that this project blurred or sharpened one of them."""
    rough, other = (np.asarray(image.reduce(BLOCK), np.int16) for image in (before, after))
    if np.abs(rough - other).max() > PLAIN:
        return False
    one = np.asarray(before, np.float32)
    difference = np.asarray(after, np.float32) - one
    means = _means(difference)
    strength = _strength(difference)
    compressed = _compressed(before, one, strength)
    if strength > max(STRONG, _strength(compressed)):
        return False
    whole, usual = (np.abs(each.mean((0, 1))) for each in (difference, compressed))
    if (whole > FAINT + USUAL * usual).any():
        return False
    sides = [BLOCK * area for area in (1, *AREAS)]
    for mean, usual, side in zip(means, _means(compressed), sides, strict=False):
        if (np.abs(mean) > FAINT + LIKELY * strength / side + USUAL * _beside(np.abs(usual))).any():
            return False
    return resampled or _sharpness(one, difference) < _sharpness(one, compressed) + SHARPER


def _means(difference: Array) -> list[Array]:
    """Means over areas (H, W, 3): blocks, blocks in between, and larger areas as far as the picture has any."""
    blocks = _pooled(difference, BLOCK)
    between = _pooled(difference[BLOCK // 2 :, BLOCK // 2 :], BLOCK)
    return [blocks, between, *(_pooled(blocks, area) for area in AREAS[1:] if area <= min(blocks.shape[:2]))]


def _pooled(values: Array, side: int) -> Array:
    rows, columns = (n // side for n in values.shape[:2])
    cut = values[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side, -1).mean((1, 3))


def _beside(values: Array) -> Array:
    """The largest value of each place and those around it."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _compressed(image: Image.Image, pixels: Array, strength: float) -> Array:
    """What a JPEG changes that changes as much, or else the one of the lowest quality."""
    for quality in QUALITIES:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        difference = np.asarray(Image.open(data), np.float32) - pixels
        if _strength(difference) >= strength:
            break
    return difference


def _strength(difference: Array) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))


def _sharpness(pixels: Array, difference: Array) -> float:
    """Correlation in [0, 1] of the difference with what is finer than two pixels."""
    detail, fine = _detail(pixels), _detail(difference)
    energy = float(np.sum(detail**2)) * float(np.sum(fine**2))
    return abs(float(np.sum(detail * fine))) / (energy + 1e-9) ** 0.5


def _detail(values: Array) -> Array:
    inner = values[1:-1, 1:-1]
    return 4 * inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
