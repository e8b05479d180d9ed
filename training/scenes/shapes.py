"""Signed distances of the shapes that parts can have: boxes, polygons and stars, superellipses, letters.

Letters: B parts, H rows, W columns.
"""

from __future__ import annotations

import string
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

LETTERS = string.ascii_uppercase + string.digits
_CELL, _BLUR = 64, 4.0  # pixels of a letter's cell, and of the blur that turns its outline into a slope


class Form(IntEnum):
    """Kinds of shape, and what the two numbers beside them mean."""

    BOX = 0  # rounded trapezoid: nothing
    POLYGON = 1  # corners; how deep a star is cut, 0 for a regular polygon
    OVAL = 2  # exponent of a superellipse: 2 an ellipse, 1 a rhombus, 4 nearly a box; nothing
    LETTER = 3  # index among `LETTERS`; nothing


def distance(local: Tensor, part: Tensor, form: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance (B, H, W) of places (B, 2, H, W) to the shape of a part, and the place across it in [-1, 1].

    Exact for boxes, close enough for others: what matters is where it is 0, and about how steep it is there.
    """
    cx, cy, top, bottom, height, radius, ring, angle = (column[:, None, None] for column in part.unbind(-1))
    x, y = local[:, 0] - cx, local[:, 1] - cy
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    height = height.clamp(min=1e-3)
    half = (top + (bottom - top) * ((y / height).clamp(-1, 1) + 1) / 2).clamp(min=1e-3)
    away = _box(x, y, half, height, radius)
    kinds = form[:, 0].round().long()
    width = ((top + bottom) / 2).clamp(min=1e-3)
    for kind, shape in ((Form.POLYGON, _polygon), (Form.OVAL, _oval), (Form.LETTER, _letter)):
        rows = (kinds == kind).nonzero()[:, 0]
        if len(rows):
            own = shape(x[rows] / width[rows], y[rows] / height[rows], form[rows, 1:])
            away = away.index_copy(0, rows, own * torch.minimum(width, height)[rows])
    away = torch.where(ring > 0, (away + ring / 2).abs() - ring / 2, away)
    return away, x / half


def _box(x: Tensor, y: Tensor, half: Tensor, height: Tensor, radius: Tensor) -> Tensor:
    dx, dy = x.abs() - half + radius, y.abs() - height + radius
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0) - radius


def _polygon(x: Tensor, y: Tensor, form: Tensor) -> Tensor:
    """Of a polygon in the unit circle, one corner up; between corners a star is drawn in."""
    corners, depth = form[:, 0, None, None], form[:, 1, None, None]
    sector = 2 * torch.pi / corners
    within = torch.remainder(torch.atan2(x, -y) + sector / 2, sector) - sector / 2
    r, inner = torch.hypot(x, y), torch.cos(sector / 2) * (1 - depth)
    # the side from the corner (1, 0) to the inner point at half a sector
    ax, ay = inner * torch.cos(sector / 2) - 1, inner * torch.sin(sector / 2)
    px, py = r * torch.cos(within.abs()) - 1, r * torch.sin(within.abs())
    return (px * ay - py * ax) / torch.hypot(ax, ay)


def _oval(x: Tensor, y: Tensor, form: Tensor) -> Tensor:
    exponent = form[:, 0, None, None]
    return (x.abs().clamp(min=1e-4) ** exponent + y.abs().clamp(min=1e-4) ** exponent) ** (1 / exponent) - 1


def _letter(x: Tensor, y: Tensor, form: Tensor) -> Tensor:
    cells = letters(x.device)[form[:, 0].round().long() % len(LETTERS)]
    grid = torch.stack([x, y], -1).clamp(-1, 1)
    inside = F.grid_sample(cells[:, None], grid, mode="bilinear", align_corners=False)[:, 0]
    beyond = torch.maximum(x.abs(), y.abs()) - 1
    return torch.where(beyond > 0, beyond + 0.05, inside)


@lru_cache(maxsize=2)
def letters(device: torch.device) -> Tensor:
    """(N, S, S) signed distances to the outlines of `LETTERS`, in half cells; each letter fills its cell."""
    cells = torch.stack([_cell(letter) for letter in LETTERS])
    slope = _BLUR * (2 * torch.pi) ** 0.5 * 2 / _CELL  # of a blurred edge, in half cells from 0 to 1
    return ((0.5 - cells) * slope).to(device)


def _cell(letter: str) -> Tensor:
    font = ImageFont.load_default(4 * _CELL)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(letter, stroke_width=6))
    drawn = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(drawn).text((-left, -top), letter, 255, font, stroke_width=6)
    side, rim = _CELL, _CELL // 8
    cell = Image.new("L", (side, side))
    cell.paste(drawn.resize((side - 2 * rim, side - 2 * rim), Image.Resampling.LANCZOS), (rim, rim))
    return torch.from_numpy(np.asarray(cell.filter(ImageFilter.GaussianBlur(_BLUR))).copy()).float() / 255
