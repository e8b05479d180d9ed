"""Scenes to pixels: signed distances, anti-aliased, vectorised over the batch. B scenes, P parts, H rows, W columns."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.scene import OWN_COLOURS, Scene, determinant

_LUMA = (0.299, 0.587, 0.114)
_SWIRL_REACH = 0.35  # squared distance at which a swirl has fallen to 1/e


def render(scene: Scene, size: tuple[int, int]) -> Tensor:
    """Render to (B, 3, H, W) in [0, 1]; `size` is (H, W) in pixels."""
    points = _pixel_grid(size, scene.parts.device)
    local = _warp(_to_object(points, scene.pose), scene)
    pixel = 2.0 / min(size) / _scale_of(scene.pose)
    image = _draw_backdrop(scene, points)
    image = _draw_shadow(scene, image, local)
    image = _draw_parts(scene, image, local, pixel)
    if len(scene.photo):
        image = torch.where(scene.is_photo[:, None, None, None], scene.photo, image)
    return _apply_tone(image, scene.tone)


def _pixel_grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W, 2) x and y of the pixel centres; the short side spans [-1, 1]."""
    height, width = size
    short = min(size)
    y = (torch.arange(height, device=device) + 0.5 - height / 2) * (2 / short)
    x = (torch.arange(width, device=device) + 0.5 - width / 2) * (2 / short)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)


def _to_object(points: Tensor, pose: Tensor) -> Tensor:
    """(B, 2, H, W) object coordinates of every pixel."""
    turn, shift = pose[:, :, :2, None, None], pose[:, :, 2, None, None]
    return turn[:, :, 0] * points[..., 0] + turn[:, :, 1] * points[..., 1] + shift


def _warp(local: Tensor, scene: Scene) -> Tensor:
    """Turn the middle of the object more than its rim, then bow it sideways."""
    centre = scene.middle[..., None, None]
    x, y = (local - centre).unbind(1)
    swirl, bend = ((column * scene.handedness)[:, None, None] for column in scene.warp.unbind(-1))
    angle = swirl * torch.exp(-(x * x + y * y) / _SWIRL_REACH)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    return torch.stack([x + bend * (y * y - 0.15), y], 1) + centre


def _scale_of(pose: Tensor) -> Tensor:
    return determinant(pose).abs().rsqrt()


def _draw_backdrop(scene: Scene, points: Tensor) -> Tensor:
    height, softness = scene.horizon[:, 0, None, None], scene.horizon[:, 1, None, None]
    mix = ((points[..., 1] - height) / softness + 0.5).clamp(0, 1)[:, None]
    top, bottom = scene.backdrop[:, 0, :, None, None], scene.backdrop[:, 1, :, None, None]
    stripes = _stripes(points[..., 0], points[..., 1], scene.texture[:, 1])
    return ((top * (1 - mix) + bottom * mix) * stripes[:, None]).clamp(0, 1)


def _stripes(x: Tensor, y: Tensor, texture: Tensor) -> Tensor:
    """(B, H, W) brightness about 1 of the texture (B, 3): waves per unit length, direction, strength."""
    waves, direction, strength = (column[:, None, None] for column in texture.unbind(-1))
    along = torch.cos(direction) * x + torch.sin(direction) * y
    return 1 + strength * torch.sin(2 * torch.pi * waves * along)


def _draw_shadow(scene: Scene, image: Tensor, local: Tensor) -> Tensor:
    """A soft ellipse where the object stands; patches on it do not count."""
    parts = scene.parts
    drawn = ((parts[..., 4] > 0) & (scene.slots < OWN_COLOURS)).float()
    floor = ((parts[..., 1] + parts[..., 4]) * drawn).amax(1)[:, None, None]
    reach = (parts[..., 2:4].amax(-1) * drawn).amax(1)[:, None, None] * 1.3
    distance = torch.hypot(local[:, 0] / reach, (local[:, 1] - floor) / 0.14)
    depth = scene.light[:, 1, None, None] * (1.2 - distance).clamp(0, 1)
    return image * (1 - depth[:, None])


def _draw_parts(scene: Scene, image: Tensor, local: Tensor, pixel: Tensor) -> Tensor:
    """Paint the parts back to front; the texture lies on those in the main colour."""
    stripes = _stripes(local[:, 0], local[:, 1], scene.texture[:, 0])
    shading = scene.light[:, 0, None, None]
    for index in range(scene.parts.shape[1]):
        part, slot = scene.parts[:, index], scene.slots[:, index]
        distance, across = _distance(local, part)
        drawn = (part[:, 4] > 0).float()[:, None, None]
        cover = (0.5 - distance / pixel[:, None, None]).clamp(0, 1) * drawn
        colour = scene.colours.gather(1, slot[:, None, None].expand(-1, 1, 3))[:, 0, :, None, None]
        shade = (1 + shading * across.clamp(-1, 1)) * torch.where(slot[:, None, None] == 0, stripes, 1)
        painted = (colour * shade[:, None]).clamp(0, 1)
        image = image + cover[:, None] * (painted - image)
    return image


def _distance(local: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance (B, H, W) to a rounded trapezoid, and the position across it in [-1, 1].

    Exact for boxes, close enough for trapezoids: the half width is interpolated over the height.
    """
    cx, cy, top, bottom, height, radius, ring, angle = (column[:, None, None] for column in part.unbind(-1))
    x, y = local[:, 0] - cx, local[:, 1] - cy
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    along = (y / height.clamp(min=1e-3)).clamp(-1, 1)
    half = top + (bottom - top) * (along + 1) / 2
    dx, dy = x.abs() - half + radius, y.abs() - height + radius
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    distance = outside + torch.maximum(dx, dy).clamp(max=0) - radius
    distance = torch.where(ring > 0, (distance + ring / 2).abs() - ring / 2, distance)
    return distance, x / half.clamp(min=1e-3)


def _apply_tone(image: Tensor, tone: Tensor) -> Tensor:
    """Exposure in stops, then contrast about mid grey, saturation and temperature, each 0 when untouched."""
    exposure, contrast, saturation, temperature = (column[:, None, None, None] for column in tone.unbind(-1))
    image = image * torch.exp2(exposure)
    tint = image.new_tensor([1.0, 0.0, -1.0])[None, :, None, None]
    image = image * (1 + temperature * tint)
    image = 0.5 + (image - 0.5) * torch.exp2(contrast)
    luma = (image * image.new_tensor(_LUMA)[None, :, None, None]).sum(1, keepdim=True)
    return (luma + (image - luma) * (1 + saturation)).clamp(0, 1)
