"""The held-out renderer: objects painted with Pillow in a shape language that training never shows.

Outlines are smooth closed curves, bundles of thick strokes, or cut-outs of held-out photographs, inked by hand as it
were. How they are painted has nothing in common with `shapes.py`; where they stand, what moves them and what they
stand before is the scene's as ever, so that the truth is exact.

Letters: B sprites, S side in pixels.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.scenes.photos import FOLDER, SPLITS
from training.scenes.scene import SPRITE_REACH

SIDE = 256
_FINE = 2  # painted so much larger, then averaged
_REACH = SPRITE_REACH * SIDE * _FINE / 2  # half the side of the box about an object, in painted pixels
_MIDDLE = SIDE * _FINE / 2

Point = tuple[float, float]


def draw_sprites(count: int, generator: torch.Generator) -> Tensor:
    """(B, 5, S, S): paint of its own (RGB), how much of the main colour shows, cover; the first four are premultiplied
    by the cover. A sprite spans [-1, 1] in object coordinates, its object `SPRITE_REACH` in each direction."""
    seeds = torch.randint(2**31, (count,), generator=generator, device=generator.device).tolist()
    return torch.stack([_sprite(random.Random(seed)) for seed in seeds]).to(generator.device)


def _sprite(chance: random.Random) -> Tensor:
    side = SIDE * _FINE
    cover, main = Image.new("L", (side, side)), Image.new("L", (side, side))
    ink = Image.new("RGB", (side, side))
    paint = chance.choice((_paint_blob, _paint_strokes, _paint_cutout))
    paint(chance, cover, main, ink)
    layers = np.concatenate([np.asarray(ink), np.asarray(main)[..., None], np.asarray(cover)[..., None]], -1)
    fine = torch.from_numpy(layers).permute(2, 0, 1).float() / 255
    fine[:4] *= fine[4:]
    return torch.nn.functional.avg_pool2d(fine, _FINE)


def _paint_blob(chance: random.Random, cover: Image.Image, main: Image.Image, ink: Image.Image) -> None:
    """A smooth closed curve in the main colour, with a dark rim and a few lines drawn inside."""
    curve = _closed_curve(chance)
    for layer, value in ((cover, 255), (main, 235)):
        ImageDraw.Draw(layer).polygon(curve, value)
    dark = tuple(chance.randrange(10, 70) for _ in range(3))
    width = chance.randrange(5, 14)
    for line in [[*curve, curve[0], curve[1]], *(_inside(_open_curve(chance)) for _ in range(chance.randrange(4)))]:
        ImageDraw.Draw(ink).line(line, dark, width, joint="curve")
        ImageDraw.Draw(main).line(line, 0, width, joint="curve")
    inner = Image.new("L", cover.size)
    ImageDraw.Draw(inner).polygon(curve, 255)
    ink.paste(0, mask=Image.eval(inner, lambda value: 255 - value))


def _paint_strokes(chance: random.Random, cover: Image.Image, main: Image.Image, ink: Image.Image) -> None:
    """A bundle of thick strokes in the main colour, some in another."""
    lines = [_open_curve(chance) for _ in range(chance.randrange(2, 5))]
    bundle = iter(_filling([point for line in lines for point in line], 0.9))
    for index, line in enumerate([next(bundle) for _ in line] for line in lines):
        width, black = chance.randrange(26, 60), (0, 0, 0)
        other = tuple(chance.randrange(256) for _ in range(3)) if index and chance.random() < 0.4 else black
        for layer, value in ((cover, 255), (main, 255 if other == black else 0), (ink, other)):
            draw = ImageDraw.Draw(layer)
            draw.line(line, value, width, joint="curve")
            for x, y in (line[0], line[-1]):
                draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), value)


def _paint_cutout(chance: random.Random, cover: Image.Image, main: Image.Image, ink: Image.Image) -> None:
    """A piece cut out of a photograph; its upper or lower half is in the main colour, light and dark as it was."""
    curve = _closed_curve(chance)
    photo = Image.open(FOLDER / f"{chance.choice(SPLITS['held_out'])}.jpg").convert("RGB")
    side = min(photo.size)
    left, top = chance.randrange(photo.width - side + 1), chance.randrange(photo.height - side + 1)
    piece = photo.crop((left, top, left + side, top + side)).resize(cover.size, Image.Resampling.LANCZOS)
    ImageDraw.Draw(cover).polygon(curve, 255)
    tinted = Image.new("L", cover.size)
    half = chance.choice(((0, 0, cover.width, cover.height // 2), (0, cover.height // 2, cover.width, cover.height)))
    ImageDraw.Draw(tinted).rectangle(half, 255)
    main.paste(Image.eval(piece.convert("L"), lambda value: min(255, 90 + value)), mask=tinted)
    ink.paste(piece, mask=Image.eval(tinted, lambda value: 255 - value))


def _closed_curve(chance: random.Random) -> list[Point]:
    """About the middle, filling the box: a circle that some waves deform, stretched one way."""
    waves = [(n, chance.uniform(0, 0.5) / n, chance.uniform(0, 2 * math.pi)) for n in (2, 3, 4, 5)]
    stretch = chance.uniform(0.55, 1.0)
    points = []
    for step in range(120):
        angle = 2 * math.pi * step / 120
        radius = 1 + sum(size * math.cos(n * angle + phase) for n, size, phase in waves)
        points.append((radius * math.cos(angle) * stretch, radius * math.sin(angle)))
    return _filling(points, 1.0)


def _open_curve(chance: random.Random) -> list[Point]:
    """A Bezier curve between random places in the box."""
    a, b, c = ((chance.uniform(-1, 1), chance.uniform(-1, 1)) for _ in range(3))
    steps = [step / 24 for step in range(25)]
    weights = [((1 - t) ** 2, 2 * t * (1 - t), t**2) for t in steps]
    return [(u * a[0] + v * b[0] + w * c[0], u * a[1] + v * b[1] + w * c[1]) for u, v, w in weights]


def _inside(points: list[Point]) -> list[Point]:
    return [(_MIDDLE + 0.5 * _REACH * x, _MIDDLE + 0.5 * _REACH * y) for x, y in points]


def _filling(points: list[Point], reach: float) -> list[Point]:
    """The points moved and scaled into the box about the middle, which they touch on its longer sides."""
    xs, ys = zip(*points, strict=True)
    scale = 2 * reach * _REACH / max(max(xs) - min(xs), max(ys) - min(ys))
    cx, cy = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [(_MIDDLE + (x - cx) * scale, _MIDDLE + (y - cy) * scale) for x, y in points]
