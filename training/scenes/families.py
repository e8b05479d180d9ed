"""Edit families: which edits there are, what they are shown on, and what is held out.

Parameters live in the unit cube, so that held-out bands and distances mean the same for every family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes import edits
from training.scenes.draw import Uniform, draw_scenes
from training.scenes.scene import Scene

HELD_OUT_BAND = (0.65, 0.80)  # of the first parameter: never shown in training
PHOTO_SHARE = 0.4  # of the scenes of families that also make sense on photographs


@dataclass(frozen=True)
class Family:
    """One kind of edit. `apply(scene, parameters)` takes (B, dims) in [0, 1] and returns the edited scenes.

    `choices` is the number of values of a discrete parameter; such a family has no held-out band, others have one in
    the `banded` dimensions. `circular` dimensions go round: 0 and 1 are the same. `subjects` names the classes it makes
    sense on.
    """

    name: str
    dims: int
    apply: Callable[[Scene, Tensor], Scene]
    subjects: str = "products"
    on_photos: bool = False
    patched: bool = False
    circular: tuple[int, ...] = ()
    banded: tuple[int, ...] = (0,)
    choices: int | None = None
    band: tuple[float, float] = HELD_OUT_BAND


def _named(*families: Family) -> dict[str, Family]:
    return {family.name: family for family in families}


_TRAINED = _named(
    Family("background", 4, edits.background, circular=(0,)),
    Family("tone", 4, edits.tone, on_photos=True),
    Family("recolour", 3, edits.recolour, circular=(0,)),
    Family("add", 5, edits.add),
    Family("remove", 1, edits.remove, patched=True, choices=len(edits.SITES)),
    Family("translate", 2, edits.translate, circular=(0,)),
    Family("rotate", 1, edits.rotate),
    Family("scale", 1, edits.scale),
    Family("mirror", 1, edits.mirror, choices=4),
    Family("viewpoint", 2, edits.viewpoint),
    Family("pose", 3, edits.pose, subjects="figures"),
    Family("bend", 1, edits.bend),
)


def _compose(first: str, second: str) -> Family:
    """First one edit, then the other."""
    a, b = _TRAINED[first], _TRAINED[second]

    def apply(scene: Scene, p: Tensor) -> Scene:
        return b.apply(a.apply(scene, p[:, : a.dims]), p[:, a.dims :])

    return Family(
        f"{first}+{second}",
        a.dims + b.dims,
        apply,
        circular=a.circular + tuple(a.dims + dim for dim in b.circular),
        banded=a.banded + tuple(a.dims + dim for dim in b.banded),
    )


FAMILIES = _TRAINED
COMPOSITIONS = _named(
    _compose("background", "recolour"),
    _compose("background", "translate"),
    _compose("recolour", "scale"),
    _compose("add", "tone"),
)
UNSEEN_COMPOSITIONS = _named(
    _compose("background", "add"),
    _compose("recolour", "translate"),
    _compose("background", "tone"),
)
RESERVED = _named(  # for training adapters: the base never sees them
    Family("lid", 1, edits.lid, subjects="lidded"),
    Family("swirl", 1, edits.swirl),
)
EVERY_FAMILY = FAMILIES | COMPOSITIONS | UNSEEN_COMPOSITIONS | RESERVED


def draw_parameters(family: Family, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
    """(count, dims) in [0, 1]; the banded dimensions lie inside the held-out band, or outside it."""
    p = torch.rand(count, family.dims, generator=generator, device=generator.device)
    if family.choices:
        return (p * family.choices).floor() / (family.choices - 1)
    low, high = family.band
    for dim in family.banded:
        outside = p[:, dim] * (1 - (high - low))
        outside = torch.where(outside < low, outside, outside + (high - low))
        p[:, dim] = low + p[:, dim] * (high - low) if held_out else outside
    return p


def parameter_distance(family: Family, a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of two parameter vectors (..., dims) in any dimension; the short way round a circle."""
    difference = (a - b).abs()
    for dim in family.circular:
        difference[..., dim] = torch.minimum(difference[..., dim], 1 - difference[..., dim])
    return difference.amax(-1)


def draw_subjects(
    family: Family, count: int, size: tuple[int, int], generator: torch.Generator, held_out: bool = False
) -> Scene:
    """Scenes that suit the family, (H, W) pixels; `held_out` takes classes and photographs training never shows."""
    share = PHOTO_SHARE if family.on_photos else 0.0
    scene = draw_scenes(count, size, generator, family.subjects, held_out=held_out, photo_share=share)
    return edits.with_patches(scene, Uniform(generator)) if family.patched else scene
