"""Where blocks of one grey picture lie in another. Letters: N blocks, P pixels of a block. Places are (x, y) in pixels,
0 at the middle of the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COARSE = 16  # pixels of the side of a block that is searched for
STRIDE = 12  # pixels between two of them
FINE, FINER = 24, 16  # pixels of the side of a block that is followed; of pictures with a side below SMALL
SMALL = 112
CELLS = 12  # fine blocks each way
CALM = 1e-3  # of 255 squared: the variance that any block has at least
CORRELATED = 4.0  # neighbouring pixels that err together, as a number of pixels
SURE = 0.04  # pixels: no block is known better


@dataclass(frozen=True)
class Matches:
    """What became of N blocks: their `places` in the one picture (N, 2), `moved` by so much in the other (N, 2), the
    `information` about that (N, 2, 2), in 1 / pixel squared, and how alike they are, `likeness` (N,) in [0, 1]."""

    places: Array
    moved: Array
    information: Array
    likeness: Array


def search(before: Array, after: Array, reach: int) -> Matches:
    """Find blocks of a small picture anywhere within `reach` pixels of their place, by normalised correlation,
    negatives too."""
    corners = _corners(before.shape, COARSE, STRIDE)
    blocks = _cut(before, corners, COARSE)
    windows = _cut(np.pad(after, reach, mode="edge"), corners, COARSE + 2 * reach)
    blocks = blocks - blocks.mean((1, 2), keepdims=True)
    size = (windows.shape[1],) * 2
    spectrum = np.fft.rfft2(windows)
    across = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(blocks, s=size)), s=size)
    across = across[:, : 2 * reach + 1, : 2 * reach + 1]
    energy = _sums(windows**2, COARSE) - _sums(windows, COARSE) ** 2 / COARSE**2
    floor = CALM * 255 * COARSE**2
    likeness = np.abs(across) / np.sqrt((energy + floor) * ((blocks**2).sum((1, 2)) + floor)[:, None, None])
    best = likeness.reshape(len(blocks), -1).argmax(1)
    moved = np.stack([best % (2 * reach + 1), best // (2 * reach + 1)], -1) - reach
    places = corners[:, ::-1] + (COARSE - 1) / 2 - _middle(before)
    weight = np.broadcast_to(np.eye(2), (len(best), 2, 2))
    return Matches(places, moved, weight, likeness.reshape(len(blocks), -1).max(1))


def textured(picture: Array) -> Array:
    """Places of blocks (N, 2) with corners to follow, one in each cell of a grid."""
    right, down = np.gradient(picture, axis=1), np.gradient(picture, axis=0)
    size = min(size_of(picture), min(picture.shape) - 1)
    xx, yy, xy = (_sums(product[None], size)[0] for product in (right**2, down**2, right * down))
    corner = xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    rows, columns = (np.array_split(np.arange(n), min(CELLS, max(1, n // 8))) for n in corner.shape)
    best = []
    for row in rows:
        for column in columns:
            cell = corner[row[0] : row[-1] + 1, column[0] : column[-1] + 1]
            y, x = np.unravel_index(cell.argmax(), cell.shape)
            best.append((column[0] + x, row[0] + y))
    return np.array(best) + (size - 1) / 2 - _middle(picture)


def follow(before: Array, after: Array, places: Array, targets: Array, turned: Array) -> Matches:
    """Where blocks at `places` of the one picture lie in the other, near `targets` (N, 2), to a fraction of a pixel.
    Inside a block, `turned` (2, 2) leads from the one to the other.

    Lucas and Kanade's step, with the mean of both gradients; brightness and contrast of each block are its own.
    """
    shape = (size_of(before) + 2,) * 2
    one, other = _patch(before, places, np.eye(2), shape), _patch(after, targets, turned, shape)
    one, other = (patch - patch.mean(1, keepdims=True) for patch in (one, other))
    other = other * np.where((one * other).sum(1) < 0, -1, 1)[:, None]  # a negative
    right, down = ((_sloped(one, axis) + _sloped(other, axis)) / 2 for axis in (2, 1))
    one, other = (_inner(patch) for patch in (one, other))
    one = one - one.mean(1, keepdims=True)
    freed = [_freed(each, one) for each in (other, right, down)]
    found = _solved(places, targets, one, other - other.mean(1, keepdims=True), *freed)
    room = np.array(after.shape[::-1]) / 2 - size_of(after) / 2 + 1
    inside = np.all(np.abs(targets) <= room, axis=1)
    return replace(found, information=found.information * inside[:, None, None])


def alike(before: Array, after: Array, places: Array, targets: Array, turned: Array, shape: tuple[int, int]) -> Array:
    """How alike (N,) patches of `shape` (H, W) are, whatever their brightness and contrast: correlation in [0, 1]."""
    one, other = _patch(before, places, np.eye(2), shape), _patch(after, targets, turned, shape)
    one, other = (patch - patch.mean(1, keepdims=True) for patch in (one, other))
    floor = CALM * 255 * one.shape[1]
    energies = ((patch**2).sum(1) + floor for patch in (one, other))
    return np.abs((one * other).sum(1)) / np.sqrt(np.prod(list(energies), 0))


def size_of(picture: Array) -> int:
    return FINE if min(picture.shape) >= SMALL else FINER


def _patch(picture: Array, places: Array, turned: Array, shape: tuple[int, int]) -> Array:
    """(N, P) values of patches around places."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    x, y = (turned @ np.stack(np.meshgrid(columns, rows)).reshape(2, -1)).astype(np.float32)
    places = places.astype(np.float32)
    return _sampled(picture, places[:, :1] + x, places[:, 1:] + y)


def _solved(places: Array, targets: Array, one: Array, other: Array, rest: Array, right: Array, down: Array) -> Matches:
    xx, yy, xy = (np.einsum("np,np->n", a, b) for a, b in ((right, right), (down, down), (right, down)))
    x, y = (-np.einsum("np,np->n", slope, rest) for slope in (right, down))
    floor = CALM * one.shape[1]
    xx, yy = xx + floor, yy + floor
    determinant = xx * yy - xy**2
    step = np.stack([(yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant], -1)
    left = rest + step[:, :1] * right + step[:, 1:] * down
    noise = (left**2).mean(1) + CALM * 255
    information = np.stack([xx, xy, xy, yy], -1).reshape(-1, 2, 2) / (noise * CORRELATED)[:, None, None]
    known = np.linalg.inv(np.linalg.inv(information + np.eye(2) * 1e-6) + np.eye(2) * SURE**2)
    explained = 1 - (left**2).sum(1) / ((other**2).sum(1) + CALM * 255 * one.shape[1])
    return Matches(places, targets + step - places, known, np.sqrt(explained.clip(0, 1)))


def _freed(patches: Array, of: Array) -> Array:
    """Patches (N, P) without their mean and without what is a multiple of other patches, themselves without mean."""
    patches = patches - patches.mean(1, keepdims=True)
    share = (patches * of).sum(1) / ((of**2).sum(1) + 1e-6)
    return patches - share[:, None] * of


def _sloped(patches: Array, axis: int) -> Array:
    square = _square(patches)
    slope = (square[:, 1:-1, 2:] - square[:, 1:-1, :-2]) if axis == 2 else (square[:, 2:, 1:-1] - square[:, :-2, 1:-1])
    return slope.reshape(len(patches), -1) / 2


def _inner(patches: Array) -> Array:
    return _square(patches)[:, 1:-1, 1:-1].reshape(len(patches), -1)


def _square(patches: Array) -> Array:
    side = round(patches.shape[1] ** 0.5)
    return patches.reshape(-1, side, side)


def _sampled(picture: Array, x: Array, y: Array) -> Array:
    """Values at places (N, P), linear between pixels, the border's beyond it."""
    height, width = picture.shape
    x, y = (x + (width - 1) / 2).clip(0, width - 1.01), (y + (height - 1) / 2).clip(0, height - 1.01)
    left, top = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left.astype(np.float32), y - top.astype(np.float32)
    flat, at = picture.reshape(-1), top * width + left
    upper = flat[at] * (1 - x) + flat[at + 1] * x
    lower = flat[at + width] * (1 - x) + flat[at + width + 1] * x
    return upper * (1 - y) + lower * y


def _corners(shape: tuple[int, ...], size: int, stride: int) -> Array:
    rows, columns = (np.arange(0, n - size + 1, stride) for n in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)


def _cut(picture: Array, corners: Array, size: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(picture, (size, size))[corners[:, 0], corners[:, 1]]


def _sums(pictures: Array, size: int) -> Array:
    """Sums over every square of `size` pixels: (N, H, W) to (N, H - size + 1, W - size + 1)."""
    total = np.pad(pictures, ((0, 0), (1, 0), (1, 0))).cumsum(1, dtype=np.float64).cumsum(2)
    return total[:, size:, size:] - total[:, :-size, size:] - total[:, size:, :-size] + total[:, :-size, :-size]


def _middle(picture: Array) -> Array:
    return (np.array(picture.shape[::-1]) - 1) / 2
