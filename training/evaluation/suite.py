"""The scenes benchmark: is the edit read off the pair, or guessed?

Every case shows a pair of one object and a query of another. The same query is edited with a wrong pair as well: the
same object and family of edit, other parameters. A model that ignores the pair scores the same with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.transfer import Editor
from training.evaluation.cases import Case, Trial, draw_trials
from training.evaluation.plan import SPLITS, Plan, group_of
from training.evaluation.scores import Scores, mean, score


@dataclass(frozen=True, kw_only=True)
class Row:
    """The scores of one family in one split at one number of denoising steps."""

    split: str
    family: str
    group: str
    steps: int
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One case as it came out, at the first number of steps: for contact sheets and progress."""

    split: str
    family: str
    case: Case
    right: Tensor
    wrong: Tensor


def evaluate_scenes(
    editor: Editor,
    plan: Plan,
    shown: Callable[[Shown], None] = lambda _: None,
    demonstrated: Tensor | None = None,
) -> Iterator[Row]:
    """Score an editor, split by split and family by family; `shown` hears of every case when it is done.

    `demonstrated`: as in `draw_trials`; the plan has one family then.
    """
    plan = plan.fit(editor)
    assert plan.size is not None
    for split, family in plan.runs:
        scored: dict[int, list[dict[str, float]]] = {steps: [] for steps in plan.steps}
        trials = draw_trials(family, split, count=plan.cases, seed=plan.seed, size=plan.size, demonstrated=demonstrated)
        for trial in trials:
            seeds = [len(scored[plan.steps[0]]) + index for index in range(len(trial))]
            results = _edit_trial(editor, trial, seeds, plan.steps)
            for steps, pairs in results.items():
                scored[steps] += [score(case, *pair) for case, pair in zip(trial, pairs, strict=True)]
            for case, (right, wrong) in zip(trial, results[plan.steps[0]], strict=True):
                shown(Shown(split=split, family=family, case=case, right=right, wrong=wrong))
        for steps, rows in scored.items():
            scores = mean(rows)
            if SPLITS[split].held_out_parameters or demonstrated is not None:
                scores = replace(scores, chance=math.nan)
            yield Row(split=split, family=family, group=group_of(family), steps=steps, scores=scores)


def _edit_trial(
    editor: Editor, trial: Trial, seeds: list[int], steps: tuple[int, ...]
) -> dict[int, list[tuple[Tensor, Tensor]]]:
    """For each number of steps and each case, the results with the right and with the wrong pair, from one noise."""
    before = to_image(trial[0].before)
    queries = [to_image(case.query) for case in trial]
    prefixes = [editor.remember([(before, to_image(after))]) for after in (trial[0].after, trial[0].wrong_after)]
    results = {
        count: [
            [to_pixels(image) for image in editor.edit(queries, prefix, seeds=seeds, steps=count)]
            for prefix in prefixes
        ]
        for count in steps
    }
    return {count: list(zip(right, wrong, strict=True)) for count, (right, wrong) in results.items()}


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] to an RGB image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
