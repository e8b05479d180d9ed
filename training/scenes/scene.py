"""Scenes: what is in the picture, as tensors. Letters: B scenes, P parts, C colours, H rows, W columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

OWN_COLOURS = 3  # of a product: main, second, dark; those after them belong to patches


@dataclass(frozen=True, kw_only=True)
class Scene:
    """B scenes. Colours are RGB in [0, 1], lengths in units of half the short image side."""

    parts: Tensor  # (B, P, 8) see products.py; a part with height 0 is not drawn
    slots: Tensor  # (B, P) index into `colours` of each part
    joints: Tensor  # (B, P) `Joint` of each part
    colours: Tensor  # (B, C, 3) main, second, dark, and those of patches
    texture: Tensor  # (B, 2, 3) of object and backdrop: waves per unit length, direction, strength
    backdrop: Tensor  # (B, 2, 3) colour at the top and at the bottom
    horizon: Tensor  # (B, 2) height and softness of the change between them
    light: Tensor  # (B, 2) shading across a part, strength of the shadow
    pose: Tensor  # (B, 2, 3) affine map from scene to object coordinates
    warp: Tensor  # (B, 2) swirl in radians, bend; 0 changes nothing
    tone: Tensor  # (B, 4) exposure, contrast, saturation, temperature; 0 changes nothing
    photo: Tensor  # (B or 0, 3, H, W) photographs that replace the rendering where `is_photo`; 0 if there are none
    is_photo: Tensor  # (B,) bool

    def with_(self, **changes: Tensor) -> Scene:
        """The same scenes with some tensors replaced."""
        return replace(self, **changes)

    @property
    def handedness(self) -> Tensor:
        """(B,) 1, or -1 where the object is drawn mirrored: left in the picture is then right on the object."""
        return determinant(self.pose).sign()

    @property
    def middle(self) -> Tensor:
        """(B, 2) middle of the box about the object's own parts, in object coordinates; patches do not count."""
        parts, own = self.parts, (self.parts[..., 4] > 0) & (self.slots < OWN_COLOURS)
        cos, sin = torch.cos(parts[..., 7]).abs(), torch.sin(parts[..., 7]).abs()
        width, height = parts[..., 2:4].amax(-1), parts[..., 4]
        half = torch.stack([width * cos + height * sin, width * sin + height * cos], -1)
        low = (parts[..., :2] - half).masked_fill(~own[..., None], torch.inf).amin(1)
        high = (parts[..., :2] + half).masked_fill(~own[..., None], -torch.inf).amax(1)
        return ((low + high) / 2).nan_to_num()  # of no parts: the origin


def join_scenes(scenes: Sequence[Scene]) -> Scene:
    """One batch of all scenes, those with fewer parts or colours filled up with parts that are not drawn."""
    parts = max(scene.parts.shape[1] for scene in scenes)
    colours = max(scene.colours.shape[1] for scene in scenes)
    some_photo = next((scene.photo for scene in scenes if len(scene.photo)), scenes[0].photo)
    filled = [
        scene.with_(
            parts=_fill(scene.parts, parts),
            slots=_fill(scene.slots, parts),
            joints=_fill(scene.joints, parts),
            colours=_fill(scene.colours, colours),
            photo=scene.photo
            if len(scene.photo) or not len(some_photo)
            else some_photo.new_zeros(len(scene.parts), *some_photo.shape[1:]),
        )
        for scene in scenes
    ]
    return Scene(**{field.name: torch.cat([getattr(scene, field.name) for scene in filled]) for field in fields(Scene)})


def _fill(tensor: Tensor, count: int) -> Tensor:
    """Zeros after dimension 1 until it has `count` entries."""
    missing = count - tensor.shape[1]
    return F.pad(tensor, (0,) * 2 * (tensor.ndim - 2) + (0, missing)) if missing else tensor


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Hue, saturation, value in [0, 1], shape (..., 3), to RGB in [0, 1]."""
    hue, saturation, value = hsv.unbind(-1)
    offsets = hsv.new_tensor([5.0, 3.0, 1.0])
    k = (offsets + hue.unsqueeze(-1) * 6) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * ramp)


def determinant(pose: Tensor) -> Tensor:
    """(B,) of the linear part of a map (B, 2, 3); written out, as a factorisation is slow for 2x2."""
    return pose[:, 0, 0] * pose[:, 1, 1] - pose[:, 0, 1] * pose[:, 1, 0]


def affine(turn: Tensor, shift: Tensor) -> Tensor:
    """(B, 2, 3) from a linear map (B, 2, 2) and what is added after it (B, 2)."""
    return torch.cat([turn, shift.unsqueeze(-1)], -1)


def object_pose(shift: Tensor, angle: Tensor, scale: Tensor, flip: Tensor) -> Tensor:
    """Affine (B, 2, 3) from scene to object coordinates: undo shift (B, 2), then turn, scale and mirror (B,)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack([torch.stack([cos * flip, sin * flip], -1), torch.stack([-sin, cos], -1)], 1)
    return affine(turn, -(turn @ shift.unsqueeze(-1))[..., 0])
