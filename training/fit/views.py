"""Pairs as clean tokens, encoded once, under a few views each.

Letters: V views, S tokens, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.transfer import Editor
from pipelines.transfer.editor import to_tensor
from pipelines.transfer.layout import Grid
from training.pairs.check import Pair

SMALLEST_CROP = 0.75  # of the sides of a picture; crops keep its proportions
TURNED = 0.35  # share of views shown mirrored, where that is allowed


COLOURS = tuple(permutations((0, 1, 2)))  # which channel becomes red, green and blue; the first changes nothing


@dataclass(frozen=True)
class View:
    """One look at a pair: before and after, cropped and mirrored alike, as clean tokens (S, C)."""

    before: Tensor
    after: Tensor
    grid: Grid


@dataclass(frozen=True)
class Looks:
    """All views of one pair, by the colours they are in; the very first one is the picture as it is.

    Pairs and queries that are shown together are in the same colours: then an edit of colours is still one edit.
    """

    edit: str
    views: tuple[tuple[View, ...], ...]


@torch.no_grad()
def look_at(
    editor: Editor, pairs: Sequence[Pair], views: int, *, mirrored: bool = False, colours: int = 1, seed: int = 0
) -> list[Looks]:
    """Encode pairs under `views` views in each of `colours` colours; the same arguments give the same views.

    Raises:
        ImageError: a picture too small or too elongated for the base.
    """
    return [
        Looks(
            pair.edit,
            tuple(
                tuple(_view(editor, pair, colour, index, mirrored, seed) for index in range(views))
                for colour in range(colours)
            ),
        )
        for pair in pairs
    ]


def _view(editor: Editor, pair: Pair, colour: int, index: int, mirrored: bool, seed: int) -> View:
    before, after = pair.before, pair.after
    if after.size != before.size:
        after = after.resize(before.size, Image.Resampling.LANCZOS)
    if index:
        key = f"{seed} {colour} {index} {pair.digest}"
        generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:14], 16))
        before, after = _alike(before, after, torch.rand(4, generator=generator).tolist(), mirrored)
    before, after = (_in_colours(editor.fit(image), colour) for image in (before, after))
    tokens = editor.family.encode(to_tensor([before])), editor.family.encode(to_tensor([after]))
    return View(tokens[0][0].float(), tokens[1][0].float(), editor.grid(before))


def _in_colours(image: Image.Image, colour: int) -> Image.Image:
    channels = image.split()
    return Image.merge("RGB", [channels[index] for index in COLOURS[colour]])


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
