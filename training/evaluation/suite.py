"""The scenes benchmark: is the edit read off the pair, or guessed?

Every case shows a pair of one held-out object and a query of another, with an edit from the held-out parameter band.
The same query is edited with a wrong pair as well: the same object and family of edit, other parameters. A model that
ignores the pair scores the same with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.transfer import Editor
from training.evaluation.metrics import changed_region, nearest, psnr
from training.scenes import FAMILIES, HELD_OUT_CLASSES, Family, draw_parameters, draw_scenes, render

ALTERNATIVES = 8  # truths to choose from, the demonstrated one among them
WRONG_DISTANCE = 0.25  # of a wrong pair's parameters: at least one of them is this far from the demonstrated one
PHOTO_SHARE = 0.5


@dataclass(frozen=True)
class Case:
    """Images (3, H, W) in [0, 1]; `alternatives` (K, 3, H, W) are truths for other parameters, the right one first."""

    before: Tensor
    after: Tensor
    wrong_after: Tensor
    query: Tensor
    alternatives: Tensor

    @property
    def truth(self) -> Tensor:
        return self.alternatives[0]


@dataclass(frozen=True)
class FamilyScores:
    """Means over the cases of one family; PSNR in dB.

    `right`, `wrong` and `copy` compare the result with the right pair, with the wrong pair, and the untouched query
    with the truth. `margin` is right minus wrong. `changed` and `rest` split `right` by region. `recovered` is the
    share of results nearest to the demonstrated parameters among the alternatives, `chance` that of guessing.
    """

    cases: int
    chance: float
    right: float
    wrong: float
    margin: float
    copy: float
    changed: float
    rest: float
    recovered: float


Shown = Callable[[str, Case, Tensor, Tensor], None]  # family, case, right result, wrong result


def evaluate_scenes(
    editor: Editor,
    *,
    cases: int = 32,
    steps: int | None = None,
    seed: int = 0,
    families: Sequence[str] | None = None,
    shown: Shown | None = None,
) -> Iterator[tuple[str, FamilyScores]]:
    """Score an editor family by family on panels of 64 px; the same seed gives the same cases."""
    for name in families or FAMILIES:
        rows = []
        for index, case in enumerate(draw_cases(FAMILIES[name], cases, seed)):
            right = _edit(editor, case, case.after, index, steps)
            wrong = _edit(editor, case, case.wrong_after, index, steps)
            rows.append(_score(case, right, wrong))
            if shown:
                shown(name, case, right, wrong)
        yield name, _mean(rows, 1 / (FAMILIES[name].choices or ALTERNATIVES))


def draw_cases(family: Family, count: int, seed: int, size: tuple[int, int] = (64, 64)) -> Iterator[Case]:
    """Cases on held-out objects, photographs and parameters."""
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 100_003 + index)
        right = draw_parameters(family, 1, generator, held_out=True)
        others = torch.cat([_other_parameters(family, right, generator) for _ in range(ALTERNATIVES)])
        share = PHOTO_SHARE if family.on_photos else 0.0
        pair, query = (
            draw_scenes(1, size, generator, HELD_OUT_CLASSES, share, photo_split="held_out") for _ in range(2)
        )
        yield Case(
            before=render(pair, size)[0],
            after=render(family.apply(pair, right), size)[0],
            wrong_after=render(family.apply(pair, others[:1]), size)[0],
            query=render(query, size)[0],
            alternatives=torch.cat(
                [render(family.apply(query, p[None]), size) for p in torch.cat([right, others[1:]])]
            ),
        )


def _other_parameters(family: Family, right: Tensor, generator: torch.Generator) -> Tensor:
    while True:
        drawn = draw_parameters(family, 1, generator)
        if (drawn - right).abs().max() >= WRONG_DISTANCE:
            return drawn


def _edit(editor: Editor, case: Case, after: Tensor, seed: int, steps: int | None) -> Tensor:
    prefix = editor.remember([(to_image(case.before), to_image(after))])
    result = editor.edit([to_image(case.query)], prefix, seeds=[seed], steps=steps)[0]
    return torch.from_numpy(np.asarray(result).copy()).permute(2, 0, 1).float() / 255


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] to an RGB image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _score(case: Case, right: Tensor, wrong: Tensor) -> dict[str, float]:
    changed = changed_region(case.query, case.truth)
    scores = {
        "right": psnr(right, case.truth),
        "wrong": psnr(wrong, case.truth),
        "copy": psnr(case.query, case.truth),
        "changed": psnr(right, case.truth, changed),
        "rest": psnr(right, case.truth, ~changed),
        "recovered": float(nearest(right, case.alternatives) == 0),
    }
    return scores | {"margin": scores["right"] - scores["wrong"]}


def _mean(rows: list[dict[str, float]], chance: float) -> FamilyScores:
    means = {key: fmean([row[key] for row in rows if not math.isnan(row[key])] or [math.nan]) for key in rows[0]}
    return FamilyScores(cases=len(rows), chance=chance, **means)
