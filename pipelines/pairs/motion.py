"""How a whole picture moved, and what of it is left to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.pairs.blocks import Array


@dataclass(frozen=True)
class Motion:
    """A place p of before, in pixels from the middle, lies at p + shift + (zoom, turn, stretch) p in after.

    `values` (5,): shift to the right and down, zoom beyond 1, turn in radians, stretch (wider is positive).
    """

    values: Array

    @property
    def linear(self) -> Array:
        """(2, 2) what leads from a step in before to the same step in after."""
        _, _, zoom, turn, stretch = self.values
        return np.array([[1 + zoom + stretch, -turn], [turn, 1 + zoom - stretch]])

    def targets(self, places: Array) -> Array:
        """Places (N, 2) in after of places in before."""
        return places + basis(places) @ self.values

    def scaled(self, factor: float) -> Motion:
        """The same motion of pictures `factor` times as large."""
        return Motion(self.values * np.array([factor, factor, 1, 1, 1]))

    def about(self, middle: Array) -> Motion:
        """The same motion, told of another middle (2,), in pixels from the old one."""
        return Motion(np.append(self.values[:2] + (self.linear - np.eye(2)) @ middle, self.values[2:]))

    def apart(self, size: tuple[float, float]) -> float:
        """Pixels by which it moves a picture of (width, height), as a root of the mean square."""
        corners = np.stack(np.meshgrid(*(np.linspace(-side / 2, side / 2, 5) for side in size)), -1).reshape(-1, 2)
        return float(np.sqrt(((self.targets(corners) - corners) ** 2).sum(1).mean()))

    def shared(self, size: tuple[float, float]) -> Array:
        """Left, top, right and bottom, from the middle, of the part of before that after shows whole."""
        half = np.array(size) / 2
        box = np.concatenate([-half, half])
        for _ in range(8):
            corners = box[[[0, 1], [2, 1], [0, 3], [2, 3]]]
            targets = self.targets(corners)
            over = np.sign(-targets) * (np.abs(targets) - half).clip(0)
            lt, rt, lb, rb = over
            box += [max(lt[0], lb[0], 0), max(lt[1], rt[1], 0), min(rt[0], rb[0], 0), min(lb[1], rb[1], 0)]
        return box


def basis(places: Array) -> Array:
    """(N, 2, 5) how far places (N, 2) move for each of the values of a motion."""
    x, y = places.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    return np.stack([np.stack([one, zero, x, -y, x], -1), np.stack([zero, one, y, x, -y], -1)], 1)
