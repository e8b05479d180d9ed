"""Training and evaluation tuples: one edit shown on several scenes. E edits, M scenes each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes.edits import Family, draw_parameters
from training.scenes.render import render
from training.scenes.scene import TRAINING_CLASSES, draw_scenes

PHOTO_SHARE = 0.4  # of the scenes of families that also make sense on photographs


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
    classes: tuple[str, ...] = TRAINING_CLASSES,
    photo_split: str = "train",
    held_out: bool = False,
    parameters: Tensor | None = None,
) -> Tuples:
    """Show `edits` random edits of one family on `scenes` random scenes each; any scene can be pair or query."""
    if parameters is None:
        parameters = draw_parameters(family, edits, generator, held_out)
    share = PHOTO_SHARE if family.on_photos else 0.0
    scene = draw_scenes(edits * scenes, size, generator, classes, share, photo_split)
    after = family.apply(scene, parameters.repeat_interleave(scenes, 0))
    shape = (edits, scenes, 3, *size)
    return Tuples(render(scene, size).view(shape), render(after, size).view(shape), parameters)
