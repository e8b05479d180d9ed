"""Whether the after image shows what its edit left alone where the before image shows it.

A motion of the whole picture is followed by blocks. Most blocks must agree on it, and so must the rim of the picture:
an object that moves before a plain backdrop leaves the rim as it was, or with nothing to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.pairs.blocks import Array, alike, size_of
from pipelines.pairs.motion import Motion
from pipelines.pairs.tracking import levels_of, track

LEAST = 0.25  # pixels by which a misaligned picture is off, as a root of the mean square
MOST = (0.08, 0.15, 0.09, 0.05)  # shift of the short side, zoom, turn in radians, stretch: beyond, it is the edit
LIKE = 0.75  # correlation of patches that show the same
CLEARLY = 0.9  # of what one place leaves unexplained, a better one leaves at most
RIM, SEGMENTS = 0.08, 8  # of the short side: how wide the rim is; patches of it along each side
TEXTURED = 0.1  # of the blocks must show something
AGREES, AGREEING = 0.2, 0.6  # weight of a block that agrees on the motion; so many of those must
MOVED, STAYED = 0.25, 0.12  # of those must have moved by it clearly; of these may clearly have stayed instead
RIM_SIDE, RIM_MOVED = 0.12, 1.6  # of the patches of three sides each must have moved; of one side's, in all
TOLD, TOLD_ZOOM, TOLD_TURN = 0.15, 0.01, 0.5  # what is worth a word: pixels, of the zoom, degrees, each by the first
RIM_STAYED = 0.25  # of the patches that moved may have stayed instead


@dataclass(frozen=True)
class Alignment:
    """How the after image lies against its before image, judged by what the edit left alone.

    shift_x, shift_y  pixels to the right and down, of the middle
    zoom              1.07 is 7 % larger
    turn              degrees clockwise
    stretch           by which it is wider than the zoom says, and less high
    apart             pixels by which the picture is off, as a root of the mean square
    """

    shift_x: float
    shift_y: float
    zoom: float
    turn: float
    stretch: float
    apart: float

    @property
    def off(self) -> bool:
        """Whether it is worth mending."""
        return self.apart >= LEAST

    def __str__(self) -> str:
        """`shifted by 8.0 px to the right and zoomed by 7.0 %`."""
        x, y, zoom = self.shift_x, self.shift_y, self.zoom - 1
        told = [
            (abs(x), f"shifted by {abs(x):.1f} px to the {'right' if x > 0 else 'left'}"),
            (abs(y), f"shifted by {abs(y):.1f} px {'down' if y > 0 else 'up'}"),
            (abs(zoom) / TOLD_ZOOM, f"zoomed by {zoom:.1%}".replace("%", " %")),
            (
                abs(self.turn) / TOLD_TURN,
                f"turned by {abs(self.turn):.1f}° {'' if self.turn > 0 else 'counter'}clockwise",
            ),
            (abs(self.stretch) / TOLD_ZOOM, f"stretched by {self.stretch:+.1%} in width".replace("%", " %")),
        ]
        parts = [text for size, text in told if size >= TOLD] or [max(told)[1]]
        return ", ".join(parts[:-1]) + " and " * (len(parts) > 1) + parts[-1]

    @property
    def motion(self) -> Motion:
        """Where the pixels of before lie in after."""
        return Motion(np.array([self.shift_x, self.shift_y, self.zoom - 1, np.radians(self.turn), self.stretch]))


def measure(before: Image.Image, after: Image.Image) -> Alignment | None:
    """How two pictures of one size lie against each other; None where that cannot be told, for want of texture or
    because the edit moved what there is to see."""
    (factor, ones), (_, others) = levels_of(before), levels_of(after)
    if min(ones[-1].shape) < 2 * size_of(ones[-1]):
        return None
    motion, places, weights = track(ones, others)
    lost = np.array(before.size) - factor * np.array(ones[0].shape[::-1])
    alignment = _told(motion.scaled(factor).about(lost / 2), before.size)
    if alignment.off and not _small(alignment, before.size):
        return None
    blocks = _Votes.of(ones[0], others[0], motion, places, (size_of(ones[0]),) * 2)
    agreeing = blocks.told & (weights > AGREES)
    if blocks.told.mean() < TEXTURED or agreeing.sum() < AGREEING * blocks.told.sum():
        return None
    moved = (blocks.moved & agreeing).sum()
    proved = moved >= MOVED * blocks.told.sum() and blocks.stayed.sum() <= STAYED * moved
    return alignment if not alignment.off or (proved and _rim_agrees(ones[0], others[0], motion)) else None


def _told(motion: Motion, size: tuple[int, int]) -> Alignment:
    shift_x, shift_y, zoom, turn, stretch = (float(value) for value in motion.values)
    return Alignment(shift_x, shift_y, 1 + zoom, float(np.degrees(turn)), stretch, motion.apart(size))


def _small(alignment: Alignment, size: tuple[int, int]) -> bool:
    shift = np.hypot(alignment.shift_x, alignment.shift_y) / min(size)
    return bool((np.abs([shift, *alignment.motion.values[2:]]) < MOST).all())


@dataclass(frozen=True)
class _Votes:
    """Of N patches: which show the same in both pictures, which of them moved clearly, and which clearly did not."""

    told: Array
    moved: Array
    stayed: Array

    @classmethod
    def of(cls, one: Array, other: Array, motion: Motion, places: Array, shape: tuple[int, int]) -> _Votes:
        """Patches of `shape` (H, W) around places (N, 2)."""
        targets = motion.targets(places)
        still = 1 - alike(one, other, places, places, np.eye(2), shape)
        moved = 1 - alike(one, other, places, targets, motion.linear, shape)
        inside = (np.abs(targets) <= np.array(other.shape[::-1]) / 2 - np.array(shape[::-1]) / 2 + 2).all(1)
        told = inside & (np.minimum(still, moved) < 1 - LIKE)
        return cls(told, told & (moved < CLEARLY * still), told & (still < CLEARLY * moved))


def _rim_agrees(one: Array, other: Array, motion: Motion) -> bool:
    sides = [_Votes.of(one, other, motion, places, shape) for places, shape in _rim(motion, one.shape)]
    moved, stayed = (np.array([getattr(side, name).mean() for side in sides]) for name in ("moved", "stayed"))
    return bool(sorted(moved)[1] > RIM_SIDE and moved.sum() > RIM_MOVED and stayed.sum() < RIM_STAYED * moved.sum())


def _rim(motion: Motion, shape: tuple[int, ...]) -> Iterator[tuple[Array, tuple[int, int]]]:
    """Patches along the left, right, upper and lower side of what both pictures show: places and (H, W)."""
    left, top, right, bottom = motion.shared((shape[1], shape[0]))
    band = max(4, round(RIM * min(shape)))
    for upright, near, far, start, stop in ((True, left, right, top, bottom), (False, top, bottom, left, right)):
        length = int((stop - start) // SEGMENTS)
        along = start + (stop - start) * (np.arange(SEGMENTS) + 0.5) / SEGMENTS
        for middle in (near + band / 2, far - band / 2):
            across = np.full(SEGMENTS, middle)
            if upright:
                yield np.stack([across, along], -1), (length, band)
            else:
                yield np.stack([along, across], -1), (band, length)
