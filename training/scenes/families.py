"""Edit families: which edits there are, what they are shown on, and what is held out.

Parameters live in the unit cube, so that held-out bands and distances mean the same for every family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes import edits
from training.scenes.draw import TRAINING, Look, draw_scenes
from training.scenes.scene import Scene
from training.scenes.uniform import Uniform

HELD_OUT_BAND = (0.65, 0.80)  # of the first parameter: never shown in training
PHOTO_SHARE = 0.4  # of the scenes of families that also make sense on photographs


@dataclass(frozen=True)
class Family:
    """One kind of edit. `apply(scene, parameters)` takes (B, dims) in [0, 1] and returns the edited scenes.

    `parameters` are what the dimensions are called. `choices` is the number of values of a discrete parameter; such a
    family has no held-out band, others have one in the `banded` dimensions. `circular` dimensions go round: 0 and 1
    are the same. `subjects` names the classes it makes sense on.
    """

    name: str
    parameters: tuple[str, ...]
    apply: Callable[[Scene, Tensor], Scene]
    subjects: str = "products"
    on_photos: bool = False
    patched: bool = False
    circular: tuple[int, ...] = ()
    banded: tuple[int, ...] = (0,)
    choices: int | None = None
    band: tuple[float, float] = HELD_OUT_BAND

    @property
    def dims(self) -> int:
        return len(self.parameters)


def _named(*families: Family) -> dict[str, Family]:
    return {family.name: family for family in families}


_COLOUR = ("hue", "saturation", "brightness")
_MOTION = ("direction", "distance")

_TRAINED = _named(
    Family("background", (*_COLOUR, "falloff"), edits.background, circular=(0,)),
    Family("tone", ("exposure", "contrast", "saturation", "temperature"), edits.tone, on_photos=True),
    Family("recolour", _COLOUR, edits.recolour, circular=(0,)),
    Family("add", ("across", "down", "size", "hue", "roundness"), edits.add),
    Family("remove", ("site",), edits.remove, patched=True, choices=len(edits.SITES)),
    Family("translate", _MOTION, edits.translate, circular=(0,)),
    Family("rotate", ("angle",), edits.rotate),
    Family("scale", ("factor",), edits.scale),
    Family("mirror", ("axis",), edits.mirror, choices=4),
    Family("viewpoint", ("shear", "squash"), edits.viewpoint),
    Family("pose", ("raise", "spread", "lean"), edits.pose, subjects="figures"),
    Family("bend", ("bow",), edits.bend),
    Family("turn", ("angle",), edits.turn, on_photos=True),
    Family("zoom", ("factor",), edits.zoom, on_photos=True),
    Family("pan", _MOTION, edits.pan, on_photos=True, circular=(0,)),
    Family("flip", ("axis",), edits.flip, on_photos=True, choices=4),
)


def _compose(first: str, second: str) -> Family:
    """First one edit, then the other."""
    a, b = _TRAINED[first], _TRAINED[second]

    def apply(scene: Scene, p: Tensor) -> Scene:
        return b.apply(a.apply(scene, p[:, : a.dims]), p[:, a.dims :])

    return Family(
        f"{first}+{second}",
        (*(f"{first}.{name}" for name in a.parameters), *(f"{second}.{name}" for name in b.parameters)),
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
    Family("lid", ("angle",), edits.lid, subjects="lidded"),
    Family("swirl", ("angle",), edits.swirl),
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
    family: Family, count: int, size: tuple[int, int], generator: torch.Generator, look: Look = TRAINING
) -> Scene:
    """Scenes that suit the family, (H, W) pixels."""
    share = PHOTO_SHARE if family.on_photos and not look.sprites else 0.0
    scene = draw_scenes(count, size, generator, family.subjects, look=look, photo_share=share)
    return edits.with_patches(scene, Uniform(generator)) if family.patched else scene
