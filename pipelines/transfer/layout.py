"""The one rule of the project: which tokens exist, where they sit, and which are clean.

A panel is one image as a grid of tokens. Pairs (`before`, `after`) and the `query` are clean, the `result` is noised.
Position ids follow FLUX.2 (Black Forest Labs): `(T, H, W, L)`, where H and W restart at 0 in every panel and T tells
the panels apart: 0 for the result, 10, 20, 30 ... for the references, so every panel may have its own size.

Pairs may be compact: fewer tokens, spread over the positions that they would have in full, so that the same place in a
picture has the same H and W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from infra.errors import ImageError
from pipelines.codec import MAX_ASPECT

Role = Literal["before", "after", "query", "result"]
Attention = Literal["prefix", "full", "joint"]
Grid = tuple[int, int]  # rows, columns, in tokens

TIME_STRIDE = 10


@dataclass(frozen=True)
class Panel:
    """One image in the sequence: `time` is its T coordinate, `grid` its rows and columns in tokens, `span` the rows and
    columns of positions that they are spread over."""

    role: Role
    time: int
    grid: Grid
    span: Grid

    @property
    def clean(self) -> bool:
        return self.role != "result"

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    def ids(self) -> Tensor:
        """Position ids (S, 4), row by row; whole numbers unless the panel is compact."""
        rows, columns = self.places()
        return torch.cartesian_prod(torch.tensor([self.time]).to(rows), rows, columns, torch.zeros(1).to(rows))

    def places(self) -> tuple[Tensor, Tensor]:
        """H of every row and W of every column: the middle of the positions that a token stands for."""
        if self.grid == self.span:
            return torch.arange(self.grid[0]), torch.arange(self.grid[1])
        rows, columns = (
            (torch.arange(tokens) + 0.5) * (positions / tokens) - 0.5
            for tokens, positions in zip(self.grid, self.span, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class Layout:
    """All panels of one edit, in reading order: pairs, query, result."""

    pairs: tuple[tuple[Panel, Panel], ...]
    query: Panel
    result: Panel


def compacted(grid: Grid, compact: int) -> Grid:
    """The grid of an image of a pair whose sides have `compact` times fewer tokens than at full scale."""
    rows, columns = grid
    return -(-rows // compact), -(-columns // compact)


def layout(pairs: Sequence[tuple[Grid, Grid]], query: Grid, attention: Attention, compact: int = 1) -> Layout:
    """Lay out `pairs` and a `query`, with their grids at full scale; the result has the query's grid.

    `prefix`: pairs do not see each other, so all of them sit at the same two times and the query at the third; their
    order cannot matter and their caches can be joined. `full`: everything sees everything, so every reference has a
    time of its own, in order, the query last (the stock multi-reference pass). `joint`: the references see each other
    and sit as in `full`. `compact` is by how much the sides of pairs have fewer tokens.
    """
    spots = [0 if attention == "prefix" else index for index in range(len(pairs))]
    last = 1 if attention == "prefix" else len(pairs)
    return Layout(
        pairs=tuple(
            (
                Panel("before", TIME_STRIDE * (2 * spot + 1), compacted(before, compact), before),
                Panel("after", TIME_STRIDE * (2 * spot + 2), compacted(after, compact), after),
            )
            for spot, (before, after) in zip(spots, pairs, strict=True)
        ),
        query=Panel("query", TIME_STRIDE * (2 * last + 1), query, query),
        result=Panel("result", 0, query, query),
    )


def working_size(width: int, height: int, multiple: int, max_area: int) -> tuple[int, int]:
    """The size in pixels, (width, height), at which an image goes through the model.

    Keeps the proportions, shrinks to at most `max_area` pixels, and snaps both sides to `multiple`.

    Raises:
        ImageError: `too_small` (a side under one token) or `aspect_ratio` (longer than 8:1).
    """
    if min(width, height) < multiple:
        raise ImageError(
            f"The image is {width}x{height} pixels, but each side must have at least {multiple}.",
            code="too_small",
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The image is {width}x{height} pixels: the longer side may be at most {MAX_ASPECT:g} times the shorter"
            " one. Crop it first.",
            code="aspect_ratio",
        )
    scale = min(1.0, math.sqrt(max_area / (width * height)))
    columns, rows = (max(1, round(side * scale / multiple)) for side in (width, height))
    while columns * rows * multiple * multiple > max_area and max(columns, rows) > 1:
        columns, rows = (columns - 1, rows) if columns >= rows else (columns, rows - 1)
    return columns * multiple, rows * multiple
