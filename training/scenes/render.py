"""Scenes to pixels: signed distances, anti-aliased, vectorised over the batch. B scenes, P parts, H rows, W columns."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.scene import Scene

_LUMA = (0.299, 0.587, 0.114)


def render(scene: Scene, size: tuple[int, int]) -> Tensor:
    """Render to (B, 3, H, W) in [0, 1]; `size` is (H, W) in pixels."""
    points = _pixel_grid(size, scene.parts.device)
    local = _to_object(points, scene.pose)
    pixel = 2.0 / min(size) / _scale_of(scene.pose)
    image = _draw_backdrop(scene, points)
    image = _draw_shadow(scene, image, local)
    image = _draw_parts(scene, image, local, pixel)
    if scene.photo is not None and scene.is_photo is not None:
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
    """(B, H, W, 2) object coordinates of every pixel."""
    turn, shift = pose[:, :, :2], pose[:, :, 2]
    return torch.einsum("bij,hwj->bhwi", turn, points) + shift[:, None, None]


def _scale_of(pose: Tensor) -> Tensor:
    return torch.linalg.det(pose[:, :, :2]).abs().rsqrt()


def _draw_backdrop(scene: Scene, points: Tensor) -> Tensor:
    y = points[None, :, :, 1]
    height, softness = scene.horizon[:, 0, None, None], scene.horizon[:, 1, None, None]
    mix = ((y - height) / softness + 0.5).clamp(0, 1)[:, None]
    top, bottom = scene.backdrop[:, 0, :, None, None], scene.backdrop[:, 1, :, None, None]
    return top * (1 - mix) + bottom * mix


def _draw_shadow(scene: Scene, image: Tensor, local: Tensor) -> Tensor:
    """A soft ellipse where the object stands."""
    parts = scene.parts
    floor = (parts[..., 1] + parts[..., 4]).amax(1)[:, None, None]
    reach = parts[..., 2:4].amax((1, 2))[:, None, None] * 1.3
    distance = torch.hypot(local[..., 0] / reach, (local[..., 1] - floor) / 0.14)
    depth = scene.light[:, 1, None, None] * (1.2 - distance).clamp(0, 1)
    return image * (1 - depth[:, None])


def _draw_parts(scene: Scene, image: Tensor, local: Tensor, pixel: Tensor) -> Tensor:
    """Paint the parts back to front."""
    for index in range(scene.parts.shape[1]):
        part = scene.parts[:, index]
        distance, across = _distance(local, part)
        drawn = (part[:, 4] > 0).float()[:, None, None]
        cover = (0.5 - distance / pixel[:, None, None]).clamp(0, 1) * drawn
        colour = scene.colours.gather(1, scene.slots[:, index, None, None].expand(-1, 1, 3))[:, 0, :, None, None]
        shade = 1 + scene.light[:, 0, None, None] * across.clamp(-1, 1)
        painted = (colour * shade[:, None]).clamp(0, 1)
        image = image + cover[:, None] * (painted - image)
    return image


def _distance(local: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance (B, H, W) to a rounded trapezoid, and the position across it in [-1, 1].

    Exact for boxes, close enough for trapezoids: the half width is interpolated over the height.
    """
    cx, cy, top, bottom, height, radius, ring, angle = (column[:, None, None] for column in part.unbind(-1))
    x, y = local[..., 0] - cx, local[..., 1] - cy
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
