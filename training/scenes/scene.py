"""Scenes: what is in the picture, as tensors.

Letters: B scenes, P parts, C colours, K bystanders, S side of a sprite in pixels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

OWN_COLOURS = 3  # of a product: main, second, dark; those after them belong to bystanders and patches
SPRITE_REACH = 0.6  # half the side of the box about a sprite, in object coordinates


@dataclass(frozen=True, kw_only=True)
class Scene:
    """B scenes. Colours are RGB in [0, 1], lengths in units of half the short image side.

    A picture is seen through `camera`, which leads from its places to those of the scene, and `pose` from there to
    places on the object. The object is the largest thing in the scene, and what edits are about; bystanders stay as
    they are.
    """

    parts: Tensor  # (B, P, 8) see products.py; a part with height 0 is not drawn
    forms: Tensor  # (B, P, 3) see shapes.py: which kind of shape, and two numbers that it understands
    slots: Tensor  # (B, P) index into `colours` of each part
    joints: Tensor  # (B, P) `Joint` of each part
    owners: Tensor  # (B, P) 0 of the object, else the number of the bystander
    colours: Tensor  # (B, C, 3) main, second, dark, then those of bystanders and of patches
    sprite: Tensor  # (B or 0, 5, S, S) see sprites.py: a painted object instead of parts; 0 if there are none
    texture: Tensor  # (B, 2, 4) of object and backdrop, see surfaces.py: waves, direction, strength, pattern
    backdrop: Tensor  # (B, 2, 3) colour at the top and at the bottom
    horizon: Tensor  # (B, 2) height and softness of the change between them
    light: Tensor  # (B, 2) shading across a part, strength of the shadow below the object
    sun: (
        Tensor  # (B, 5) direction it comes from, then how much it shades, how long shadows it casts, how much it shines
    )
    softness: Tensor  # (B,) of edges, in pixels; 1 is sharp
    pose: Tensor  # (B, 2, 3) affine map from scene to object coordinates
    others: Tensor  # (B, K, 2, 3) the same for bystanders
    camera: Tensor  # (B, 2, 3) affine map from picture to scene coordinates
    warp: Tensor  # (B, 2) swirl in radians, bend; 0 changes nothing
    tone: Tensor  # (B, 4) exposure, contrast, saturation, temperature; 0 changes nothing
    photo: Tensor  # (B,) index of a photograph, -1 for none
    crop: Tensor  # (B, 2, 3) affine map from scene coordinates to those of the photograph, whose sides span [-1, 1]
    contrast: Tensor  # (B,) of the photograph, 0 to 1
    is_photo: Tensor  # (B,) bool: the photograph is all there is; otherwise it is the backdrop

    def with_(self, **changes: Tensor) -> Scene:
        """The same scenes with some tensors replaced."""
        return replace(self, **changes)

    def rows(self, which: slice | Tensor) -> Scene:
        """Some of the scenes."""
        return self.with_(
            **{
                name: tensor[which] if name != "sprite" or len(tensor) else tensor
                for name, tensor in vars(self).items()
            }
        )

    @property
    def handedness(self) -> Tensor:
        """(B,) 1, or -1 where the object is drawn mirrored: left in the picture is then right on the object."""
        return determinant(self.pose).sign()

    @property
    def own(self) -> Tensor:
        """(B, P) bool: parts of the object itself; patches on it and bystanders do not count."""
        return (self.parts[..., 4] > 0) & (self.slots < OWN_COLOURS)

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """(B, 2) twice: where the box about the object begins and ends, in object coordinates."""
        parts, own = self.parts, self.own[..., None]
        cos, sin = torch.cos(parts[..., 7]).abs(), torch.sin(parts[..., 7]).abs()
        width, height = parts[..., 2:4].amax(-1), parts[..., 4]
        half = torch.stack([width * cos + height * sin, width * sin + height * cos], -1)
        low = (parts[..., :2] - half).masked_fill(~own, torch.inf).amin(1)
        high = (parts[..., :2] + half).masked_fill(~own, -torch.inf).amax(1)
        painted = ~low.isfinite()
        return low.masked_fill(painted, -SPRITE_REACH), high.masked_fill(painted, SPRITE_REACH)

    @property
    def middle(self) -> Tensor:
        """(B, 2) middle of that box, in object coordinates."""
        low, high = self.box
        return (low + high) / 2

    @property
    def place(self) -> Tensor:
        """(B, 2) where in the scene the middle of the object is."""
        return torch.linalg.solve(self.pose[:, :, :2], self.middle - self.pose[:, :, 2])


def join_scenes(scenes: Sequence[Scene]) -> Scene:
    """One batch of all scenes, those with fewer parts or colours filled up with parts that are not drawn."""
    parts = max(scene.parts.shape[1] for scene in scenes)
    colours = max(scene.colours.shape[1] for scene in scenes)
    some_sprite = next((scene.sprite for scene in scenes if len(scene.sprite)), scenes[0].sprite)
    filled = [
        scene.with_(
            **{name: _fill(getattr(scene, name), parts) for name in ("parts", "forms", "slots", "joints", "owners")},
            colours=_fill(scene.colours, colours),
            sprite=scene.sprite
            if len(scene.sprite) or not len(some_sprite)
            else some_sprite.new_zeros(len(scene.parts), *some_sprite.shape[1:]),
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


def pixel_grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """(2, H, W) x and y of the pixel centres; the short side spans [-1, 1]."""
    height, width = size
    short = min(size)
    y = (torch.arange(height, device=device) + 0.5 - height / 2) * (2 / short)
    x = (torch.arange(width, device=device) + 0.5 - width / 2) * (2 / short)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])


def mapped(places: Tensor, maps: Tensor) -> Tensor:
    """Places (B, 2, H, W) under affine maps (B, 2, 3)."""
    turn, shift = maps[:, :, :2, None, None], maps[:, :, 2, None, None]
    return turn[:, :, 0] * places[:, :1] + turn[:, :, 1] * places[:, 1:] + shift


def object_pose(shift: Tensor, angle: Tensor, scale: Tensor, flip: Tensor) -> Tensor:
    """Affine (B, 2, 3) from scene to object coordinates: undo shift (B, 2), then turn, scale and mirror (B,)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack([torch.stack([cos * flip, sin * flip], -1), torch.stack([-sin, cos], -1)], 1)
    return affine(turn, -(turn @ shift.unsqueeze(-1))[..., 0])
