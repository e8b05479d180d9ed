"""Patterns on objects and backdrops: stripes, checks, dots and mottling."""

from __future__ import annotations

import torch
from torch import Tensor

PATTERNS = ("stripes", "checks", "dots", "mottled")
_EDGE = 6.0  # steepness of the borders of checks and dots
_TURNS = (0.0, 2.1, 4.0)  # radians between the waves that mottle


def pattern(x: Tensor, y: Tensor, texture: Tensor) -> Tensor:
    """(B, H, W) brightness about 1 at places (B, H, W) under the texture (B, 4): waves per unit length, direction,
    strength, index among `PATTERNS`."""
    waves, direction, strength, kind = (column[:, None, None] for column in texture.unbind(-1))
    cos, sin, turns = torch.cos(direction), torch.sin(direction), 2 * torch.pi * waves
    along, across = turns * (cos * x + sin * y), turns * (cos * y - sin * x)
    stripes = torch.sin(along)
    if not kind.any():
        return 1 + strength * stripes
    other = torch.sin(across)
    checks = (_EDGE * stripes * other).clamp(-1, 1)
    dots = (_EDGE * (stripes + other - 1)).clamp(-1, 1)
    mottled = torch.stack([_wave(along, across, turn) for turn in _TURNS]).mean(0)
    return (
        1 + strength * torch.stack([stripes, checks, dots, mottled]).gather(0, kind.long()[None].expand(1, *x.shape))[0]
    )


def _wave(along: Tensor, across: Tensor, turn: float) -> Tensor:
    """One of some waves in different directions, each bent by another."""
    bent = along + 1.5 * torch.sin(0.7 * across + turn)
    return torch.sin(bent * torch.cos(torch.tensor(turn)) + across * torch.sin(torch.tensor(turn)) + turn)
