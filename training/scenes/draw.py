"""Random scenes. Everything is drawn on the generator's device, in the same order for the same arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.photos import crops
from training.scenes.products import JOINTS, PRODUCTS, SUBJECTS
from training.scenes.scene import Scene, hsv_to_rgb, object_pose

INVENTED_SHARE = 0.35  # of training products: shapes made up on the spot, so that no few classes are learned by heart
INVENTED_PARTS = 4
OFF_CENTRE = (0.12, 0.7)  # of an object in the middle, and of the one farthest from it, in each direction


class Uniform:
    """Uniform random tensors from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        noise = torch.rand(*shape, generator=self.generator, device=self.device)
        return low + (high - low) * noise


def draw_scenes(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    subjects: str = "products",
    *,
    held_out: bool = False,
    photo_share: float = 0.0,
    classes: tuple[str, ...] | None = None,
) -> Scene:
    """Draw `count` scenes of `subjects` (see `SUBJECTS`), or of the `classes` given.

    `held_out` takes classes and photographs that training never shows. `size` is (H, W) in pixels, needed for
    photographs, which replace a share of the renderings.
    """
    uniform = Uniform(generator)
    invented = subjects == "products" and not held_out and classes is None
    parts, slots, joints = _draw_parts(count, classes or SUBJECTS[subjects][held_out], uniform, invented)
    is_photo = uniform(count) < photo_share
    return Scene(
        parts=parts,
        slots=slots,
        joints=joints,
        colours=_draw_colours(count, uniform),
        texture=_draw_texture(count, uniform),
        backdrop=_draw_backdrop(count, uniform),
        horizon=torch.stack([uniform(count, low=-0.3, high=0.8), uniform(count, low=0.02, high=1.2)], -1),
        light=torch.stack([uniform(count, low=-0.35, high=0.35), uniform(count, high=0.5)], -1),
        pose=_draw_pose(count, uniform),
        warp=torch.zeros(count, 2, device=generator.device),
        tone=torch.zeros(count, 4, device=generator.device),
        photo=crops(count if photo_share else 0, size, generator, "held_out" if held_out else "train"),
        is_photo=is_photo,
    )


def _draw_parts(
    count: int, classes: tuple[str, ...], uniform: Uniform, invented: bool
) -> tuple[Tensor, Tensor, Tensor]:
    most = max(INVENTED_PARTS if invented else 0, *(len(PRODUCTS[name]) for name in classes))
    table, joints = torch.zeros(len(classes), most, 9), torch.zeros(len(classes), most, dtype=torch.long)
    for row, name in enumerate(classes):
        table[row, : len(PRODUCTS[name])] = torch.tensor(PRODUCTS[name])
        joints[row, : len(JOINTS.get(name, ()))] = torch.tensor(JOINTS.get(name, ()), dtype=torch.long)
    chosen = (uniform(count) * len(classes)).long()
    parts, joints = table.to(uniform.device)[chosen], joints.to(uniform.device)[chosen]
    if invented:
        take = (uniform(count) < INVENTED_SHARE)[:, None]
        parts = torch.where(take[..., None], _invent_parts(count, most, uniform), parts)
        joints = torch.where(take, 0, joints)
    stretch = uniform(count, 1, 2, low=0.8, high=1.2)
    shape = torch.cat([parts[..., :2] * stretch, parts[..., 2:4] * stretch[..., :1], parts[..., 4:8]], -1)
    shape[..., 2:4] *= uniform(count, most, 2, low=0.9, high=1.1)
    shape[..., 4] *= stretch[..., 1]
    return shape, parts[..., 8].long(), joints


def _invent_parts(count: int, most: int, uniform: Uniform) -> Tensor:
    """(B, P, 9) a body in the main colour in the middle, and attachments of any colour about it."""
    shape = (count, most)
    parts = torch.zeros(*shape, 9, device=uniform.device)
    parts[..., 0], parts[..., 1] = uniform(*shape, low=-0.45, high=0.45), uniform(*shape, low=-0.5, high=0.5)
    parts[..., 2:4] = uniform(*shape, 2, low=0.06, high=0.28)
    parts[..., 4] = uniform(*shape, low=0.06, high=0.28) * (uniform(*shape) < 0.6)
    parts[..., 5] = uniform(*shape, low=0.01, high=0.12)
    parts[..., 6] = 0.06 * (uniform(*shape) < 0.25)
    parts[..., 7] = uniform(*shape, low=-0.8, high=0.8)
    parts[..., 8] = (uniform(*shape) * 3).floor()
    body = torch.cat([uniform(count, 2, low=-0.08, high=0.08), uniform(count, 3, low=0.22, high=0.52)], -1)
    parts[:, 1, :5], parts[:, 1, 6:] = body, 0
    return parts


def _draw_colours(count: int, uniform: Uniform) -> Tensor:
    hsv = torch.stack([uniform(count, 3), uniform(count, 3), uniform(count, 3, low=0.35)], -1)
    hsv[:, 2, 1] *= 0.3
    hsv[:, 2, 2] *= 0.45
    return hsv_to_rgb(hsv)


def _draw_texture(count: int, uniform: Uniform) -> Tensor:
    """Some objects and fewer backdrops are striped, faintly."""
    strength = uniform(count, 2, low=0.08, high=0.25) * torch.tensor([1.0, 0.5], device=uniform.device)
    strength = strength * (uniform(count, 2) < torch.tensor([0.3, 0.15], device=uniform.device))
    return torch.stack([uniform(count, 2, low=1.0, high=3.5), uniform(count, 2, high=torch.pi), strength], -1)


def _draw_backdrop(count: int, uniform: Uniform) -> Tensor:
    top = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    bottom = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    plain = (uniform(count, 1) < 0.4).float()
    return hsv_to_rgb(torch.stack([top, plain * top + (1 - plain) * bottom], 1))


def _draw_pose(count: int, uniform: Uniform) -> Tensor:
    """Slightly turned, scaled and sometimes mirrored objects, some in the middle, others far from it and smaller."""
    angle = uniform(count, low=-0.15, high=0.15)
    scale = uniform(count, low=0.75, high=1.05)
    flip = torch.where(uniform(count) < 0.5, 1.0, -1.0)
    reach = OFF_CENTRE[0] + (OFF_CENTRE[1] - OFF_CENTRE[0]) * uniform(count, 1).square()
    shift = uniform(count, 2, low=-1, high=1) * reach
    return object_pose(shift, angle, scale * (1 - 0.5 * shift.norm(dim=1)), flip)
