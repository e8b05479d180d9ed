"""What each edit family does to a scene. Parameters are (B, dims) in [0, 1]; directions are as seen in the picture.

Spatial families stay away from "hardly any": no value of their parameters leaves the scene as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.products import Joint
from training.scenes.scene import Scene, affine, hsv_to_rgb
from training.scenes.uniform import Uniform

SITES = ((-0.22, -0.34), (0.22, -0.34), (-0.22, 0.02), (0.22, 0.02), (-0.22, 0.38), (0.22, 0.38))
_PATCH_COLOUR = (0.85, 0.95)  # saturation and value of an added patch


def background(scene: Scene, p: Tensor) -> Scene:
    """A new plain backdrop: hue, saturation, brightness, and how dark it gets towards the floor."""
    top = hsv_to_rgb(torch.stack([p[:, 0], 0.15 + 0.75 * p[:, 1], 0.25 + 0.75 * p[:, 2]], -1))
    bottom = top * (0.45 + 0.55 * p[:, 3:4])
    horizon = torch.stack([torch.full_like(p[:, 0], 0.3), torch.full_like(p[:, 0], 0.8)], -1)
    plain = scene.texture * scene.texture.new_tensor([1.0, 0.0])[:, None]
    photo = torch.where(scene.is_photo, scene.photo, -1)
    return scene.with_(backdrop=torch.stack([top, bottom], 1), horizon=horizon, texture=plain, photo=photo)


def tone(scene: Scene, p: Tensor) -> Scene:
    """Exposure, contrast, saturation, temperature."""
    low, high = p.new_tensor([-1.0, -0.8, -1.0, -0.4]), p.new_tensor([0.9, 0.8, 0.9, 0.4])
    return scene.with_(tone=low + (high - low) * p)


def recolour(scene: Scene, p: Tensor) -> Scene:
    """A new main colour of the object: hue, saturation, brightness."""
    main = hsv_to_rgb(torch.stack([p[:, 0], 0.35 + 0.65 * p[:, 1], 0.3 + 0.7 * p[:, 2]], -1))
    return scene.with_(colours=torch.cat([main[:, None], scene.colours[:, 1:]], 1))


def add(scene: Scene, p: Tensor) -> Scene:
    """A patch on the object: across, down, size, hue, roundness."""
    place, size = (p[:, :2] - 0.5) * p.new_tensor([0.7, 0.9]), 0.12 + 0.13 * p[:, 2]
    colour = torch.stack([p[:, 3], *(torch.full_like(p[:, 3], value) for value in _PATCH_COLOUR)], -1)
    return _with_patch(scene, place, size, size * p[:, 4], hsv_to_rgb(colour))


def remove(scene: Scene, p: Tensor) -> Scene:
    """One of the patches that `with_patches` put on the object is gone; which one, discrete."""
    site = (p[:, 0] * (len(SITES) - 1)).round().long() - len(SITES)
    parts = scene.parts.clone()
    parts[torch.arange(len(parts), device=parts.device), site, 4] = 0
    return scene.with_(parts=parts)


def with_patches(scene: Scene, uniform: Uniform) -> Scene:
    """A patch of any colour at each of the `SITES`, about there."""
    count = len(scene.parts)
    for site in SITES:
        place = scene.parts.new_tensor(site) + uniform(count, 2, low=-0.04, high=0.04)
        size = uniform(count, low=0.10, high=0.16)
        colour = hsv_to_rgb(torch.stack([uniform(count), uniform(count, low=0.4), uniform(count, low=0.5)], -1))
        scene = _with_patch(scene, place, size, size * uniform(count), colour)
    return scene


def _with_patch(scene: Scene, place: Tensor, size: Tensor, radius: Tensor, colour: Tensor) -> Scene:
    zero = torch.zeros_like(size)
    part = torch.stack([place[:, 0] * scene.handedness, place[:, 1], size, size, size, radius, zero, zero], -1)
    slot = torch.full_like(scene.slots[:, :1], scene.colours.shape[1])
    return scene.with_(
        parts=torch.cat([scene.parts, part[:, None]], 1),
        forms=torch.cat([scene.forms, torch.zeros_like(part[:, None, :3])], 1),
        slots=torch.cat([scene.slots, slot], 1),
        joints=torch.cat([scene.joints, torch.zeros_like(slot)], 1),
        owners=torch.cat([scene.owners, torch.zeros_like(slot)], 1),
        colours=torch.cat([scene.colours, colour[:, None]], 1),
    )


def translate(scene: Scene, p: Tensor) -> Scene:
    """Move the object: direction, distance."""
    angle, distance = p[:, 0] * 2 * torch.pi, 0.2 + 0.35 * p[:, 1]
    return _moved(scene, shift=torch.stack([torch.cos(angle), torch.sin(angle)], -1) * distance[:, None])


def rotate(scene: Scene, p: Tensor) -> Scene:
    """Turn the object by 15 to 120 degrees, to either side."""
    return _moved(scene, _turn(_signed(p[:, 0], 0.26, 2.1)))


def scale(scene: Scene, p: Tensor) -> Scene:
    """Make the object smaller or larger, by a factor of 1.2 to 1.9."""
    return _moved(scene, _zoom(-_signed(p[:, 0], 0.25, 0.9)))


def mirror(scene: Scene, p: Tensor) -> Scene:
    """Mirror the object: left to right, about a diagonal, upside down, about the other diagonal; discrete."""
    return _moved(scene, _mirror(p[:, 0]))


def viewpoint(scene: Scene, p: Tensor) -> Scene:
    """See the object from another side: shear to either side, and foreshorten."""
    shear, squash = _signed(p[:, 0], 0.2, 0.7), 1.0 + 0.7 * p[:, 1]
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    return _moved(scene, torch.stack([torch.stack([squash, shear], -1), torch.stack([zero, one], -1)], 1))


def turn(scene: Scene, p: Tensor) -> Scene:
    """Turn the whole picture by 8 to 45 degrees, to either side."""
    return _seen(scene, _turn(_signed(p[:, 0], 0.14, 0.8)))


def zoom(scene: Scene, p: Tensor) -> Scene:
    """See less or more of the scene, by a factor of 1.2 to 1.7."""
    return _seen(scene, _zoom(-_signed(p[:, 0], 0.25, 0.75)))


def pan(scene: Scene, p: Tensor) -> Scene:
    """Everything moves: direction, distance."""
    angle, distance = p[:, 0] * 2 * torch.pi, 0.15 + 0.35 * p[:, 1]
    shift = -torch.stack([torch.cos(angle), torch.sin(angle)], -1) * distance[:, None]
    return _seen(scene, torch.eye(2, device=p.device).repeat(len(p), 1, 1), shift)


def flip(scene: Scene, p: Tensor) -> Scene:
    """Mirror the whole picture, as `mirror` does the object; discrete."""
    return _seen(scene, _mirror(p[:, 0]))


def _signed(p: Tensor, low: float, high: float) -> Tensor:
    """[0, 1] to [-high, -low] and [low, high]."""
    away = 2 * p - 1
    return torch.where(away < 0, -1.0, 1.0) * (low + (high - low) * away.abs())


def _turn(angle: Tensor) -> Tensor:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)


def _zoom(octaves: Tensor) -> Tensor:
    return torch.diag_embed(torch.exp2(octaves)[:, None].expand(-1, 2))


def _mirror(choice: Tensor) -> Tensor:
    """About the vertical, a diagonal, the horizontal, the other diagonal."""
    cos, sin = torch.cos(choice * 1.5 * torch.pi), torch.sin(choice * 1.5 * torch.pi)
    return torch.stack([torch.stack([-cos, -sin], -1), torch.stack([-sin, cos], -1)], 1)


def _moved(scene: Scene, turn: Tensor | None = None, shift: Tensor | None = None) -> Scene:
    """Move the object: `turn` (B, 2, 2) leads from the new places to the old ones, about the object's own middle."""
    old = scene.pose[:, :, :2]
    if shift is not None:
        return scene.with_(pose=affine(old, scene.pose[:, :, 2] - (old @ shift[..., None])[..., 0]))
    assert turn is not None
    turned = old @ turn
    return scene.with_(pose=affine(turned, scene.middle - (turned @ scene.place[..., None])[..., 0]))


def _seen(scene: Scene, turn: Tensor, shift: Tensor | None = None) -> Scene:
    """Move the whole picture about its middle: `turn` and then `shift` (B, 2) lead from new places to old ones."""
    old = scene.camera[:, :, :2]
    moved = scene.camera[:, :, 2] if shift is None else scene.camera[:, :, 2] + (old @ shift[..., None])[..., 0]
    return scene.with_(camera=affine(old @ turn, moved))


def pose(scene: Scene, p: Tensor) -> Scene:
    """Move a figure's limbs: raise both arms by 25 to 160 degrees, spread the legs, bend to either side."""
    parts, side = scene.parts, scene.parts[..., 0].sign()
    raised, spread = 0.44 + 2.35 * p[:, :1], 0.6 * p[:, 1:2]
    lean = (p[:, 2:3] - 0.5) * 1.0 * scene.handedness[:, None]
    shoulder = torch.stack([parts[..., 0] - side * parts[..., 2], parts[..., 1] - parts[..., 4]], -1)
    hip = torch.stack([parts[..., 0], parts[..., 1] - parts[..., 4]], -1)
    arms, legs = scene.joints == Joint.ARM, scene.joints == Joint.LEG
    parts = _turn_parts(parts, arms, shoulder, -side * raised)
    parts = _turn_parts(parts, legs, hip, -side * spread)
    waist = (hip * legs[..., None]).sum(1, keepdim=True) / legs.sum(1).clamp(min=1)[:, None, None]
    upper = arms | (scene.joints == Joint.TORSO)
    return scene.with_(parts=_turn_parts(parts, upper, waist.expand_as(hip), lean.expand_as(side)))


def lid(scene: Scene, p: Tensor) -> Scene:
    """Open a lid by 20 to 110 degrees, hinged on the left or on the right."""
    parts = scene.parts
    angle = (_signed(p[:, 0], 0.35, 1.92) * scene.handedness)[:, None].expand_as(parts[..., 0])
    hinge = torch.stack([parts[..., 0] + angle.sign() * parts[..., 3], parts[..., 1] + parts[..., 4]], -1)
    return scene.with_(parts=_turn_parts(parts, scene.joints == Joint.LID, hinge, angle))


def _turn_parts(parts: Tensor, which: Tensor, pivot: Tensor, angle: Tensor) -> Tensor:
    """Turn the parts `which` (B, P) about their `pivot` (B, P, 2), clockwise as seen on the object, in radians."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = (parts[..., :2] - pivot).unbind(-1)
    centre = pivot + torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
    turned = torch.cat([centre, parts[..., 2:7], parts[..., 7:] + angle[..., None]], -1)
    return torch.where(which[..., None], turned, parts)


def swirl(scene: Scene, p: Tensor) -> Scene:
    """Stir the object by 45 to 130 degrees, to either side."""
    return scene.with_(warp=torch.stack([_signed(p[:, 0], 0.8, 2.3), scene.warp[:, 1]], -1))


def bend(scene: Scene, p: Tensor) -> Scene:
    """Bow the object to either side."""
    return scene.with_(warp=torch.stack([scene.warp[:, 0], _signed(p[:, 0], 0.5, 1.4)], -1))
