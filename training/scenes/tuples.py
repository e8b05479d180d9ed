"""Training tuples: one edit shown on several scenes. E edits, M scenes each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes.draw import HELD_OUT, TRAINING
from training.scenes.families import Family, draw_parameters, draw_subjects
from training.scenes.render import render


@dataclass(frozen=True)
class Tuples:
    """Images in [0, 1]: `before` and `after` (E, M, 3, H, W), with the edit's `parameters` (E, dims)."""

    before: Tensor
    after: Tensor
    parameters: Tensor


def draw_tuples(
    family: Family,
    edits: int,
    scenes: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    held_out: bool = False,
) -> Tuples:
    """Show `edits` random edits of one family on `scenes` random scenes each; any scene can be pair or query.

    `held_out` takes classes, photographs and parameters that training never shows.
    """
    parameters = draw_parameters(family, edits, generator, held_out)
    scene = draw_subjects(family, edits * scenes, size, generator, HELD_OUT if held_out else TRAINING)
    after = family.apply(scene, parameters.repeat_interleave(scenes, 0))
    shape = (edits, scenes, 3, *size)
    return Tuples(render(scene, size).view(shape), render(after, size).view(shape), parameters)
