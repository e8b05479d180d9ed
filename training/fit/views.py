"""Pairs as clean tokens, encoded once, under a few views each.

Letters: V views, S tokens, C channels.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from pipelines.transfer.layout import Grid

SMALLEST_CROP = 0.75  # of the sides of a picture; crops keep its proportions
TURNED = 0.35  # share of views shown mirrored, where that is allowed
PART = 32  # views that are encoded, kept and told of at a time
TOGETHER = 8  # pictures of one size in a pass of the autoencoder: on a core 5 to 10 % quicker than alone, 16 no more
PIXELS_TOGETHER = 2**21  # in such a pass, for the memory that it takes


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

    def ready(self, editor: Editor) -> View:
        """For training with this editor: in float32, on its device, laid out the same wherever it comes from."""
        every = (self.before, self.after, *(self.shown or ()))
        before, after, *shown = (tokens.to(editor.family.device).float().contiguous() for tokens in every)
        return replace(self, before=before, after=after, shown=(shown[0], shown[1]) if shown else None)


@dataclass(frozen=True)
class Looks:
    """All views of one pair; the first one is the whole picture."""

    edit: str
    views: tuple[View, ...]


@dataclass(frozen=True)
class Glance:
    """A view that is wanted of a pair: the whole picture where `index` is 0, else a crop of its own."""

    pair: Pair
    index: int = 0
    mirrored: bool = False
    seed: int = 0

    def pictures(self, editor: Editor) -> tuple[Image.Image, Image.Image]:
        """Before and after at working size. Raises `ImageError`: too small or too elongated for the base."""
        before, after = self.pair.before, self.pair.after
        if after.size != before.size:
            after = after.resize(before.size, Image.Resampling.LANCZOS)
        if self.index:
            key = f"{self.seed} {self.index} {self.pair.digest}"
            generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:14], 16))
            before, after = _alike(before, after, torch.rand(4, generator=generator).tolist(), self.mirrored)
        return editor.fit(before), editor.fit(after)


def glances(pairs: Sequence[Pair], views: int, *, mirrored: bool = False, seed: int = 0) -> list[Glance]:
    """`views` views of each pair; the same arguments give the same ones."""
    return [Glance(pair, index, mirrored, seed) for pair in pairs for index in range(views)]


def looks_of(wanted: Sequence[Glance], views: Sequence[View]) -> list[Looks]:
    """The views of each pair, together; `views` are what was `wanted`, in that order."""
    starts = [place for place, glance in enumerate(wanted) if glance.index == 0]
    return [
        Looks(wanted[start].pair.edit, tuple(views[start:end]))
        for start, end in itertools.pairwise([*starts, len(wanted)])
    ]


def look_at(editor: Editor, pairs: Sequence[Pair], views: int, *, mirrored: bool = False, seed: int = 0) -> list[Looks]:
    """Encode pairs under `views` views each. Raises `ImageError`: a picture too small or too elongated for the base."""
    wanted = glances(pairs, views, mirrored=mirrored, seed=seed)
    return looks_of(wanted, encode(editor, wanted))


def encode(editor: Editor, wanted: Sequence[Glance]) -> list[View]:
    """The views that are wanted, in that order. Raises as `look_at` does."""
    return [view.ready(editor) for part in parts_of(wanted) for view in encode_part(editor, part)]


def parts_of(wanted: Sequence[Glance]) -> list[Sequence[Glance]]:
    """What is encoded at a time; how it is divided depends on nothing but what is wanted."""
    return [wanted[start : start + PART] for start in range(0, len(wanted), PART)]


@torch.no_grad()
def encode_part(editor: Editor, wanted: Sequence[Glance]) -> list[View]:
    """A few views, as the autoencoder gives them."""
    pictures = [picture for glance in wanted for picture in glance.pictures(editor)]
    plain = _tokens(editor, pictures, 1)
    small = _tokens(editor, pictures, editor.compact) if editor.compact > 1 else []
    views = []
    for place in range(0, len(pictures), 2):
        shown = (small[place], small[place + 1]) if small else None
        views.append(View(plain[place], plain[place + 1], editor.grid(pictures[place]), shown, editor.compact))
    return views


def _tokens(editor: Editor, pictures: Sequence[Image.Image], compact: int) -> list[Tensor]:
    """Clean tokens of each picture (S, C). Pictures of one size go together, as many as make up a few megapixels."""
    found: dict[int, Tensor] = {}
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        by_size[picture.size].append(place)
    for (width, height), places in by_size.items():
        together = max(1, min(TOGETHER, PIXELS_TOGETHER // (width * height)))
        for start in range(0, len(places), together):
            batch = places[start : start + together]
            tokens = editor.shown_together([pictures[place] for place in batch], compact)
            found.update(zip(batch, tokens.unbind(), strict=True))
    return [found[place] for place in range(len(pictures))]


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
