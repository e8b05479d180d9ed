"""A misaligned pair, mended: the after image as the before image's frame shows it, both cropped to what they share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipelines.pairs.alignment import Alignment
from pipelines.pairs.blocks import Array
from pipelines.pairs.motion import Motion

WHOLE = 0.1  # pixels: a motion this near to whole pixels needs no new pixels
STRIP = 64  # rows that are computed at a time


def mend(before: Image.Image, after: Image.Image, alignment: Alignment) -> tuple[Image.Image, Image.Image, bool]:
    """Both pictures as far as they show the same, of one size, and whether after had to be resampled for it."""
    motion, moved = _simplest(alignment.motion, before.size)
    middle = np.array(before.size * 2) / 2
    left, top, right, bottom = motion.shared(before.size) + middle
    box = int(np.ceil(left - 1e-3)), int(np.ceil(top - 1e-3)), int(right + 1e-3), int(bottom + 1e-3)
    return before.crop(box), _seen(after, motion, box), moved


def _simplest(motion: Motion, size: tuple[int, int]) -> tuple[Motion, bool]:
    """The motion by whole pixels or without a turn where that is all the same, and whether it needs new pixels."""
    whole = Motion(np.append(motion.values[:2].round(), [0, 0, 0]))
    if Motion(motion.values - whole.values).apart(size) < WHOLE:
        return whole, False
    turn = Motion(motion.values * [0, 0, 0, 1, 0])
    return (Motion(motion.values - turn.values) if turn.apart(size) < WHOLE else motion), True


def _seen(after: Image.Image, motion: Motion, box: tuple[int, int, int, int]) -> Image.Image:
    """What lies in after where `box` (left, top, right, bottom) of before went to."""
    size, middle = (box[2] - box[0], box[3] - box[1]), np.array(after.size) / 2
    if motion.values[3]:
        rows = np.concatenate(list(_turned(np.asarray(after, np.float32), motion, box)))
        return Image.fromarray(rows.round().clip(0, 255).astype(np.uint8))
    corners = motion.targets(np.reshape(box, (2, 2)) - middle) + middle
    left, top, right, bottom = (float(end) for end in np.clip(corners.reshape(-1), 0, after.size * 2))
    return after.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def _turned(pixels: Array, motion: Motion, box: tuple[int, int, int, int]) -> Iterator[Array]:
    """Strips (H, W, 3) of what Pillow's own transform would shift by up to a tenth of a pixel."""
    left, top, right, bottom = box
    middle = np.array(pixels.shape[1::-1]) / 2
    for start in range(top, bottom, STRIP):
        grid = np.meshgrid(np.arange(left, right), np.arange(start, min(start + STRIP, bottom)))
        places = np.stack(grid, -1) + 0.5 - middle
        targets = motion.targets(places.reshape(-1, 2)) + middle - 0.5
        yield _interpolated(pixels, targets).reshape(*places.shape[:2], 3)


def _interpolated(pixels: Array, places: Array) -> Array:
    """Colours (N, 3) at (x, y), by cubic convolution (Keys, 1981)."""
    first = np.floor(places).astype(int)
    across, down = (_weights((places - first)[:, axis]) for axis in (0, 1))
    height, width = pixels.shape[:2]
    colours = np.zeros((len(places), 3), np.float32)
    for row in range(4):
        y = (first[:, 1] + row - 1).clip(0, height - 1)
        for column in range(4):
            x = (first[:, 0] + column - 1).clip(0, width - 1)
            colours += (down[row] * across[column])[:, None] * pixels[y, x]
    return colours


def _weights(t: Array) -> Array:
    """(4, N) of the pixels around a place `t` beyond the second one."""
    weights = [
        t * (t * (2 - t) - 1),
        t * t * (3 * t - 5) + 2,
        t * (t * (4 - 3 * t) + 1),
        t * t * (t - 1),
    ]
    return (np.stack(weights) / 2).astype(np.float32)
