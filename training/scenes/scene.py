"""Scenes: what is in the picture, as tensors. Letters: B scenes, P parts, H rows, W columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.scenes.photos import crops
from training.scenes.products import HELD_OUT_CLASSES, MAX_PARTS, PRODUCTS, TRAINING_CLASSES

__all__ = ["HELD_OUT_CLASSES", "PRODUCTS", "TRAINING_CLASSES", "Scene", "draw_scenes", "hsv_to_rgb"]


@dataclass(frozen=True)
class Scene:
    """B scenes. Colours are RGB in [0, 1], lengths in units of half the short image side."""

    parts: Tensor  # (B, P, 8) see products.py; a part with height 0 is not drawn
    slots: Tensor  # (B, P) colour slot of each part
    colours: Tensor  # (B, 3, 3) main, second and dark colour
    backdrop: Tensor  # (B, 2, 3) colour at the top and at the bottom
    horizon: Tensor  # (B, 2) height and softness of the change between them
    light: Tensor  # (B, 2) shading across a part, strength of the shadow
    pose: Tensor  # (B, 2, 3) affine map from scene to object coordinates
    tone: Tensor  # (B, 4) exposure, contrast, saturation, temperature; 0 changes nothing
    photo: Tensor | None = None  # (B, 3, H, W) a photograph instead of a rendering, where is_photo
    is_photo: Tensor | None = None  # (B,) bool

    def with_(self, **changes: Tensor) -> Scene:
        """The same scenes with some tensors replaced."""
        return replace(self, **changes)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Hue, saturation, value in [0, 1], shape (..., 3), to RGB in [0, 1]."""
    hue, saturation, value = hsv.unbind(-1)
    offsets = hsv.new_tensor([5.0, 3.0, 1.0])
    k = (offsets + hue.unsqueeze(-1) * 6) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * ramp)


def draw_scenes(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    classes: tuple[str, ...] = TRAINING_CLASSES,
    photo_share: float = 0.0,
    photo_split: str = "train",
) -> Scene:
    """Draw `count` random scenes on the generator's device; `size` is (H, W) in pixels, needed for photographs."""
    uniform = _Uniform(generator)
    parts, slots = _draw_parts(count, classes, uniform)
    is_photo = uniform(count) < photo_share
    photo = crops(count, size, generator, photo_split) if photo_share > 0 else None
    return Scene(
        parts=parts,
        slots=slots,
        colours=_draw_colours(count, uniform),
        backdrop=_draw_backdrop(count, uniform),
        horizon=torch.stack([uniform(count, low=-0.3, high=0.8), uniform(count, low=0.02, high=1.2)], -1),
        light=torch.stack([uniform(count, low=-0.35, high=0.35), uniform(count, low=0.0, high=0.5)], -1),
        pose=_draw_pose(count, uniform),
        tone=torch.zeros(count, 4, device=generator.device),
        photo=photo,
        is_photo=is_photo if photo is not None else None,
    )


class _Uniform:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        noise = torch.rand(*shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * noise


def _draw_parts(count: int, classes: tuple[str, ...], uniform: _Uniform) -> tuple[Tensor, Tensor]:
    table = torch.zeros(len(classes), MAX_PARTS, 9)
    for row, name in enumerate(classes):
        table[row, : len(PRODUCTS[name])] = torch.tensor(PRODUCTS[name])
    table = table.to(uniform.generator.device)
    chosen = table[(uniform(count) * len(classes)).long()]
    parts, slots = chosen[..., :8].clone(), chosen[..., 8].long()
    stretch = uniform(count, 1, 2, low=0.8, high=1.2)
    parts[..., 0:2] *= stretch
    parts[..., 2:4] *= stretch[..., :1] * uniform(count, MAX_PARTS, 2, low=0.9, high=1.1)
    parts[..., 4] *= stretch[..., 1]
    return parts, slots


def _draw_colours(count: int, uniform: _Uniform) -> Tensor:
    hsv = torch.stack([uniform(count, 3), uniform(count, 3), uniform(count, 3, low=0.35)], -1)
    hsv[:, 2, 1] *= 0.3
    hsv[:, 2, 2] *= 0.45
    return hsv_to_rgb(hsv)


def _draw_backdrop(count: int, uniform: _Uniform) -> Tensor:
    top = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    bottom = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    plain = (uniform(count, 1) < 0.4).float()
    return hsv_to_rgb(torch.stack([top, plain * top + (1 - plain) * bottom], 1))


def _draw_pose(count: int, uniform: _Uniform) -> Tensor:
    """Slightly moved, turned, scaled and sometimes mirrored objects."""
    angle = uniform(count, low=-0.15, high=0.15)
    scale = uniform(count, low=0.75, high=1.05)
    flip = torch.where(uniform(count) < 0.5, 1.0, -1.0)
    shift = uniform(count, 2, low=-0.12, high=0.12)
    return object_pose(shift, angle, scale, flip)


def object_pose(shift: Tensor, angle: Tensor, scale: Tensor, flip: Tensor) -> Tensor:
    """Affine (B, 2, 3) from scene to object coordinates: undo shift (B, 2), then turn, scale and mirror (B,)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack([torch.stack([cos * flip, sin * flip], -1), torch.stack([-sin, cos], -1)], 1)
    return torch.cat([turn, -(turn @ shift.unsqueeze(-1))], -1)
