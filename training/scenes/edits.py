"""Edit families: what changes between before and after. Parameters live in the unit cube, so that held-out bands and
distances mean the same for every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes.scene import Scene, hsv_to_rgb, object_pose

HELD_OUT_BAND = (0.40, 0.55)  # of the first parameter: never shown in training


@dataclass(frozen=True)
class Family:
    """One kind of edit. `apply(scene, parameters)` takes (B, dims) in [0, 1] and returns the edited scenes.

    `choices` is the number of values of a discrete parameter; such a family has no held-out band.
    """

    name: str
    dims: int
    apply: Callable[[Scene, Tensor], Scene]
    on_photos: bool = False
    choices: int | None = None


def _background(scene: Scene, p: Tensor) -> Scene:
    top = hsv_to_rgb(torch.stack([p[:, 0], 0.15 + 0.75 * p[:, 1], 0.25 + 0.75 * p[:, 2]], -1))
    bottom = top * (0.45 + 0.55 * p[:, 3:4])
    horizon = torch.stack([torch.full_like(p[:, 0], 0.3), torch.full_like(p[:, 0], 0.8)], -1)
    return scene.with_(backdrop=torch.stack([top, bottom], 1), horizon=horizon)


def _tone(scene: Scene, p: Tensor) -> Scene:
    low, high = p.new_tensor([-1.0, -0.8, -1.0, -0.4]), p.new_tensor([0.9, 0.8, 0.9, 0.4])
    return scene.with_(tone=low + (high - low) * p)


def _recolour(scene: Scene, p: Tensor) -> Scene:
    main = hsv_to_rgb(torch.stack([p[:, 0], 0.35 + 0.65 * p[:, 1], 0.3 + 0.7 * p[:, 2]], -1))
    return scene.with_(colours=torch.cat([main[:, None], scene.colours[:, 1:]], 1))


def _translate(scene: Scene, p: Tensor) -> Scene:
    return _moved(scene, shift=(p - 0.5) * 1.0)


def _scale(scene: Scene, p: Tensor) -> Scene:
    return _moved(scene, scale=torch.exp2((p[:, 0] - 0.5) * 1.8))


def _flip(scene: Scene, p: Tensor) -> Scene:
    """0: left to right, 1: upside down."""
    return _moved(scene, angle=p[:, 0] * torch.pi, flip=torch.full_like(p[:, 0], -1.0))


def _moved(
    scene: Scene,
    shift: Tensor | None = None,
    angle: Tensor | None = None,
    scale: Tensor | None = None,
    flip: Tensor | None = None,
) -> Scene:
    """Compose a movement of the object, about the middle of the picture, with the pose it has."""
    one = torch.ones_like(scene.pose[:, 0, 0])
    move = object_pose(
        shift if shift is not None else torch.zeros_like(scene.pose[:, :, 2]),
        angle if angle is not None else one * 0,
        scale if scale is not None else one,
        flip if flip is not None else one,
    )
    turn = scene.pose[:, :, :2] @ move[:, :, :2]
    offset = scene.pose[:, :, :2] @ move[:, :, 2:] + scene.pose[:, :, 2:]
    return scene.with_(pose=torch.cat([turn, offset], -1))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("background", 4, _background),
        Family("tone", 4, _tone, on_photos=True),
        Family("recolour", 3, _recolour),
        Family("translate", 2, _translate),
        Family("scale", 1, _scale),
        Family("flip", 1, _flip, choices=2),
    )
}


def draw_parameters(family: Family, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
    """(count, dims) in [0, 1]; the first lies inside the held-out band, or outside it."""
    p = torch.rand(count, family.dims, generator=generator, device=generator.device)
    if family.choices:
        return (p * family.choices).floor() / (family.choices - 1)
    low, high = HELD_OUT_BAND
    if held_out:
        p[:, 0] = low + p[:, 0] * (high - low)
    else:
        outside = p[:, 0] * (1 - (high - low))
        p[:, 0] = torch.where(outside < low, outside, outside + (high - low))
    return p
