"""Pairs as clean tokens, encoded once, under a few views each.

Letters: V views, S tokens, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from pipelines.transfer.layout import Grid

SMALLEST_CROP = 0.75  # of the sides of a picture; crops keep its proportions
TURNED = 0.35  # share of views shown mirrored, where that is allowed


@dataclass(frozen=True)
class View:
    """One look at a pair: before and after, cropped and mirrored alike, as clean tokens (S, C).

    `shown` is how both are shown as a pair, where pairs are `compact` and have fewer tokens.
    """

    before: Tensor
    after: Tensor
    grid: Grid
    shown: tuple[Tensor, Tensor] | None = None
    compact: int = 1


@dataclass(frozen=True)
class Looks:
    """All views of one pair; the first one is the whole picture."""

    edit: str
    views: tuple[View, ...]


@torch.no_grad()
def look_at(editor: Editor, pairs: Sequence[Pair], views: int, *, mirrored: bool = False, seed: int = 0) -> list[Looks]:
    """Encode pairs under `views` views each; the same arguments give the same views.

    Raises:
        ImageError: a picture too small or too elongated for the base.
    """
    return [
        Looks(pair.edit, tuple(_view(editor, pair, index, mirrored, seed) for index in range(views))) for pair in pairs
    ]


def _view(editor: Editor, pair: Pair, index: int, mirrored: bool, seed: int) -> View:
    before, after = pair.before, pair.after
    if after.size != before.size:
        after = after.resize(before.size, Image.Resampling.LANCZOS)
    if index:
        key = f"{seed} {index} {pair.digest}"
        generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:14], 16))
        before, after = _alike(before, after, torch.rand(4, generator=generator).tolist(), mirrored)
    before, after = editor.fit(before), editor.fit(after)

    def encoded(compact: int) -> tuple[Tensor, Tensor]:
        return editor.shown(before, compact)[0].float(), editor.shown(after, compact)[0].float()

    shown = encoded(editor.compact) if editor.compact > 1 else None
    return View(*encoded(1), editor.grid(before), shown, editor.compact)


def _alike(before: Image.Image, after: Image.Image, draws: Sequence[float], mirrored: bool) -> tuple[Image.Image, ...]:
    """Both pictures under one crop, mirrored together or not at all: geometry is the same inside a pair."""
    width, height = before.size
    share = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[0]
    left, top = draws[1] * (1 - share) * width, draws[2] * (1 - share) * height
    box = (left, top, left + share * width, top + share * height)
    pictures = [picture.resize(picture.size, Image.Resampling.LANCZOS, box=box) for picture in (before, after)]
    if mirrored and draws[3] < TURNED:
        pictures = [ImageOps.mirror(picture) for picture in pictures]
    return tuple(pictures)
