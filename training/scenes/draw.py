"""Random scenes. Everything is drawn on the generator's device, in the same order for the same arguments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.scenes.objects import BYSTANDERS, draw_objects
from training.scenes.photos import draw_crops
from training.scenes.products import SUBJECTS
from training.scenes.scene import Scene, hsv_to_rgb, object_pose
from training.scenes.sprites import draw_sprites
from training.scenes.surfaces import PATTERNS
from training.scenes.uniform import Uniform

OFF_CENTRE = (0.12, 0.7)  # of an object in the middle, and of the one farthest from it, in each direction


@dataclass(frozen=True, kw_only=True)
class Look:
    """What scenes may show.

    held_out   classes and photographs that training never shows
    sprites    objects of the held-out renderer instead of parts
    busy       share of the scenes with other shapes, patterns, photographs behind, bystanders, sunlight and blur
    """

    held_out: bool = False
    sprites: bool = False
    busy: float = 0.0


PLAIN = Look()
TRAINING = Look(busy=0.5)
HELD_OUT = Look(held_out=True)
BUSY = Look(held_out=True, busy=1.0)
SPRITES = Look(held_out=True, sprites=True, busy=0.3)


def draw_scenes(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    subjects: str = "products",
    *,
    look: Look = PLAIN,
    photo_share: float = 0.0,
    classes: tuple[str, ...] | None = None,
) -> Scene:
    """Draw `count` scenes of `subjects` (see `SUBJECTS`), or of the `classes` given.

    `size` is (H, W) in pixels, needed for photographs, which replace a share of the renderings.
    """
    uniform = Uniform(generator)
    invented = subjects == "products" and not look.held_out and classes is None
    busy = uniform(count) < look.busy
    objects = draw_objects(count, classes or SUBJECTS[subjects][look.held_out], uniform, invented, busy)
    is_photo = uniform(count) < photo_share
    behind = busy & (uniform(count) < 0.3)
    which, crop = draw_crops(count, size, generator, "held_out" if look.held_out else "train")
    if look.sprites:
        objects |= {
            "sprite": draw_sprites(count, generator),
            "parts": objects["parts"] * (objects["owners"] > 0)[..., None],
        }
    pose = _draw_pose(count, uniform)
    return Scene(
        **{"sprite": torch.zeros(0, 5, 1, 1, device=generator.device)} | objects,
        texture=_draw_texture(count, uniform, busy),
        backdrop=_draw_backdrop(count, uniform),
        horizon=torch.stack([uniform(count, low=-0.3, high=0.8), uniform(count, low=0.02, high=1.2)], -1),
        light=torch.stack([uniform(count, low=-0.35, high=0.35), uniform(count, high=0.5)], -1),
        sun=_draw_sun(count, uniform, busy),
        softness=1 + 3 * uniform(count) * (busy & (uniform(count) < 0.25)),
        pose=pose,
        others=_draw_others(pose, uniform),
        camera=torch.eye(2, 3, device=generator.device).repeat(count, 1, 1),
        warp=torch.zeros(count, 2, device=generator.device),
        tone=torch.zeros(count, 4, device=generator.device),
        photo=torch.where(is_photo | behind, which, -1),
        crop=crop,
        contrast=uniform(count, low=0.35),
        is_photo=is_photo,
    )


def _draw_texture(count: int, uniform: Uniform, busy: Tensor) -> Tensor:
    """Some objects and fewer backdrops are striped, faintly; in busy scenes more of them, in any pattern and bolder."""
    busy = busy[:, None]
    strength = uniform(count, 2, low=0.08, high=0.25) * torch.tensor([1.0, 0.5], device=uniform.device)
    strength = strength * (1 + busy * uniform(count, 2))
    share = torch.tensor([0.3, 0.15], device=uniform.device) + 0.3 * busy
    strength = strength * (uniform(count, 2) < share)
    kind = (uniform(count, 2) * len(PATTERNS)).floor() * busy
    return torch.stack([uniform(count, 2, low=1.0, high=3.5), uniform(count, 2, high=torch.pi), strength, kind], -1)


def _draw_backdrop(count: int, uniform: Uniform) -> Tensor:
    top = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    bottom = torch.stack([uniform(count), uniform(count, high=0.7), uniform(count, low=0.25)], -1)
    plain = (uniform(count, 1) < 0.4).float()
    return hsv_to_rgb(torch.stack([top, plain * top + (1 - plain) * bottom], 1))


def _draw_sun(count: int, uniform: Uniform, busy: Tensor) -> Tensor:
    """From above, left or right: shading, shadows and highlights, each in some of the busy scenes."""
    angle = uniform(count, low=-torch.pi, high=0)
    seen = busy[:, None] & (uniform(count, 3) < torch.tensor([0.5, 0.4, 0.3], device=uniform.device))
    amounts = uniform(count, 3, low=0.4) * torch.tensor([0.5, 0.35, 0.6], device=uniform.device)
    return torch.cat([torch.stack([torch.cos(angle), torch.sin(angle)], -1), amounts * seen], -1)


def _draw_pose(count: int, uniform: Uniform) -> Tensor:
    """Slightly turned, scaled and sometimes mirrored objects, some in the middle, others far from it and smaller."""
    angle = uniform(count, low=-0.15, high=0.15)
    scale = uniform(count, low=0.75, high=1.05)
    reach = OFF_CENTRE[0] + (OFF_CENTRE[1] - OFF_CENTRE[0]) * uniform(count, 1).square()
    shift = uniform(count, 2, low=-1, high=1) * reach
    return object_pose(shift, angle, scale * (1 - 0.5 * shift.norm(dim=1)), _flip(count, uniform))


def _draw_others(pose: Tensor, uniform: Uniform) -> Tensor:
    """(B, K, 2, 3) of bystanders: smaller than the object, and as far from it as a few tries bring them."""
    count = len(pose)
    main = torch.linalg.solve(pose[:, :, :2], -pose[:, :, 2])
    size = torch.linalg.det(pose[:, :, :2]).abs().rsqrt()
    poses = []
    for _ in range(BYSTANDERS):
        tries = uniform(count, 4, 2, low=-0.9, high=0.9)
        best = (tries - main[:, None]).norm(dim=-1).argmax(1)
        place = tries[torch.arange(count, device=pose.device), best]
        scale = size * uniform(count, low=0.35, high=0.5)
        poses.append(object_pose(place, uniform(count, low=-0.3, high=0.3), scale, _flip(count, uniform)))
    return torch.stack(poses, 1)


def _flip(count: int, uniform: Uniform) -> Tensor:
    return torch.where(uniform(count) < 0.5, 1.0, -1.0)
