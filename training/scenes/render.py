"""Scenes to pixels: signed distances, anti-aliased, vectorised over the batch. B scenes, P parts, H rows, W columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes import photos
from training.scenes.scene import Scene, determinant, mapped, pixel_grid
from training.scenes.shapes import distance
from training.scenes.surfaces import pattern

_LUMA = (0.299, 0.587, 0.114)
_SWIRL_REACH = 0.35  # squared distance at which a swirl has fallen to 1/e
_PENUMBRA = 0.14  # width of the rim of cast shadows
_SHINE_REACH = 0.012  # squared distance at which a highlight has fallen to 1/e


def render(scene: Scene, size: tuple[int, int]) -> Tensor:
    """Render to (B, 3, H, W) in [0, 1]; `size` is (H, W) in pixels."""
    points = mapped(pixel_grid(size, scene.parts.device).expand(len(scene.parts), -1, -1, -1), scene.camera)
    pixel = 2.0 / min(size) * _scale_of(scene.camera)
    image = _draw_backdrop(scene, points, size)
    image = _draw_shadows(scene, image, points)
    image = _draw_parts(scene, image, points, pixel)
    only = scene.is_photo.nonzero()[:, 0]
    if len(only):
        image = image.index_copy(0, only, _photograph(scene.rows(only), points[only], size))
    return _apply_tone(image, scene.tone)


def _scale_of(pose: Tensor) -> Tensor:
    return determinant(pose).abs().sqrt()


def _draw_backdrop(scene: Scene, points: Tensor, size: tuple[int, int]) -> Tensor:
    height, softness = scene.horizon[:, 0, None, None], scene.horizon[:, 1, None, None]
    mix = ((points[:, 1] - height) / softness + 0.5).clamp(0, 1)[:, None]
    top, bottom = scene.backdrop[:, 0, :, None, None], scene.backdrop[:, 1, :, None, None]
    painted = pattern(points[:, 0], points[:, 1], scene.texture[:, 1])
    image = ((top * (1 - mix) + bottom * mix) * painted[:, None]).clamp(0, 1)
    behind = ((scene.photo >= 0) & ~scene.is_photo).nonzero()[:, 0]
    if len(behind):
        photo, contrast = (
            _photograph(scene.rows(behind), points[behind], size),
            scene.contrast[behind, None, None, None],
        )
        image = image.index_copy(0, behind, torch.lerp(photo.mean((2, 3), keepdim=True), photo, contrast))
    return image


def _photograph(scene: Scene, points: Tensor, size: tuple[int, int]) -> Tensor:
    return photos.sample(scene.photo, mapped(points, scene.crop), min(size))


def _local(scene: Scene, points: Tensor) -> Tensor:
    """(B, 2, H, W) where on the object the places of the scene are."""
    local = mapped(points, scene.pose)
    if not scene.warp.any():
        return local
    centre = scene.middle[..., None, None]
    x, y = (local - centre).unbind(1)
    swirl, bend = ((column * scene.handedness)[:, None, None] for column in scene.warp.unbind(-1))
    angle = swirl * torch.exp(-(x * x + y * y) / _SWIRL_REACH)  # the middle turns more than the rim ...
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    return torch.stack([x + bend * (y * y - 0.15), y], 1) + centre  # ... then all bows sideways


def _draw_shadows(scene: Scene, image: Tensor, points: Tensor) -> Tensor:
    """A soft ellipse where the object stands, and the object's outline, thrown away from the sun."""
    local = _local(scene, points)
    low, high = scene.box
    middle, reach, floor = (low + high)[:, :1] / 2, 0.65 * (high - low)[:, :1], high[:, 1:]
    away = torch.hypot((local[:, 0] - middle[..., None]) / reach[..., None], (local[:, 1] - floor[..., None]) / 0.14)
    image = image * (1 - (scene.light[:, 1, None, None] * (1.2 - away).clamp(0, 1))[:, None])
    lit = (scene.sun[:, 3] > 0).nonzero()[:, 0]
    if not len(lit):
        return image
    some = scene.rows(lit)
    thrown = (some.sun[:, :2] * some.sun[:, 3:4])[..., None, None]
    cover = _outline(some, _local(some, points[lit] + thrown))
    return image.index_copy(0, lit, image[lit] * (1 - 0.45 * cover[:, None]))


def _outline(scene: Scene, local: Tensor) -> Tensor:
    """(B, H, W) soft cover of the object's own parts, or of its sprite."""
    cover = torch.zeros_like(local[:, 0])
    if len(scene.sprite):
        cover = _sprite_at(scene.sprite, local)[:, 4]
    drawn = scene.own & (scene.owners == 0)
    for index in range(scene.parts.shape[1]):
        rows = drawn[:, index].nonzero()[:, 0]
        if len(rows):
            away, _ = distance(local[rows], scene.parts[rows, index], scene.forms[rows, index])
            cover = cover.index_copy(0, rows, torch.maximum(cover[rows], (0.5 - away / _PENUMBRA).clamp(0, 1)))
    return cover


def _draw_parts(scene: Scene, image: Tensor, points: Tensor, pixel: Tensor) -> Tensor:
    """Paint the parts back to front; texture and light lie on the object, bystanders are plain."""
    local = _local(scene, points)
    textured = pattern(local[:, 0], local[:, 1], scene.texture[:, 0])
    lit, shine = _light(scene, points)
    edge = pixel * scene.softness
    if len(scene.sprite):
        image = _draw_sprite(scene, image, local, lit, textured)
    for index in range(scene.parts.shape[1]):
        rows = (scene.parts[:, index, 4] > 0).nonzero()[:, 0]
        if not len(rows):
            continue
        part, slot, owner = scene.parts[rows, index], scene.slots[rows, index], scene.owners[rows, index]
        own, pose = (owner == 0)[:, None, None], scene.pose[rows]
        places = local[rows]
        if not own.all():
            theirs = scene.others[rows, (owner - 1).clamp(min=0)]
            pose = torch.where(own, pose, theirs)
            places = torch.where(own[:, None], places, mapped(points[rows], theirs))
        away, across = distance(places, part, scene.forms[rows, index])
        cover = (0.5 - away / (edge[rows] * _scale_of(pose))[:, None, None]).clamp(0, 1)
        colour = scene.colours[rows, slot][..., None, None]
        shade = 1 + scene.light[rows, 0, None, None] * across.clamp(-1, 1)
        shade = (
            shade * torch.where(own, lit[rows], 1) * torch.where(own & (slot == 0)[:, None, None], textured[rows], 1)
        )
        gloss = shine[rows] * (own & (slot < 2)[:, None, None])
        painted = (colour * shade[:, None] + gloss[:, None]).clamp(0, 1)
        image = image.index_copy(0, rows, torch.lerp(image[rows], painted, cover[:, None]))
    return image


def _light(scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) how bright the sun makes the side of the object that it comes from, and what it adds as a highlight."""
    sun = scene.sun[..., None, None]
    if not scene.sun[:, 2:].any():
        return torch.ones_like(points[:, 0]), torch.zeros_like(points[:, 0])
    from_middle = points - scene.place[..., None, None]
    towards = from_middle[:, 0] * sun[:, 0] + from_middle[:, 1] * sun[:, 1]
    spot = (from_middle - 0.2 * sun[:, :2]).square().sum(1)
    return 1 + sun[:, 2] * (2 * towards).clamp(-1, 1), sun[:, 4] * torch.exp(-spot / _SHINE_REACH)


def _draw_sprite(scene: Scene, image: Tensor, local: Tensor, lit: Tensor, textured: Tensor) -> Tensor:
    """Its own paint, and the main colour where it leaves room for it."""
    painted = _sprite_at(scene.sprite, local)
    ink, main, cover = painted[:, :3], painted[:, 3:4], painted[:, 4:]
    colour = scene.colours[:, 0, :, None, None] * (main * textured[:, None])
    return image * (1 - cover) + ((ink + colour) * lit[:, None]).clamp(0, 1)


def _sprite_at(sprite: Tensor, local: Tensor) -> Tensor:
    """(B, 5, H, W) the sprite, which spans [-1, 1], at places on the object; nothing beyond it."""
    return F.grid_sample(sprite, local.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)


def _apply_tone(image: Tensor, tone: Tensor) -> Tensor:
    """Exposure in stops, then contrast about mid grey, saturation and temperature, each 0 when untouched."""
    exposure, contrast, saturation, temperature = (column[:, None, None, None] for column in tone.unbind(-1))
    image = image * torch.exp2(exposure)
    tint = image.new_tensor([1.0, 0.0, -1.0])[None, :, None, None]
    image = image * (1 + temperature * tint)
    image = 0.5 + (image - 0.5) * torch.exp2(contrast)
    luma = (image * image.new_tensor(_LUMA)[None, :, None, None]).sum(1, keepdim=True)
    return (luma + (image - luma) * (1 + saturation)).clamp(0, 1)
