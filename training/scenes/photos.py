"""Real photographs, as pictures and as backdrops; `photographs/README.md` says whose they are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.scenes.scene import mapped, pixel_grid

FOLDER = Path(__file__).parent / "photographs"
SPLITS = {
    "train": ("rocket", "hubble", "retina", "brick", "china", "flower"),
    "held_out": ("chelsea", "coffee", "astronaut"),
}
NAMES = tuple(name for names in SPLITS.values() for name in names)
_FINE = 5 / 2  # pixels of a photograph's short side for one of the picture's, at most


@lru_cache(maxsize=8)
def photographs(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All photographs in the order of `NAMES`, short side `side` px at most: (N, 3, H, W) in [0, 1], zeros beyond each
    one's own size, and those sizes (N, 2) as H, W."""
    loaded = [_load(FOLDER / f"{name}.jpg", side) for name in NAMES]
    sizes = torch.tensor([photo.shape[1:] for photo in loaded])
    height, width = sizes.amax(0).tolist()
    padded = [F.pad(photo, (0, width - photo.shape[2], 0, height - photo.shape[1])) for photo in loaded]
    return torch.stack(padded).to(device), sizes.to(device)


def _load(path: Path, side: int) -> Tensor:
    image = Image.open(path).convert("RGB")
    scale = min(1.0, side / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def draw_crops(count: int, size: tuple[int, int], generator: torch.Generator, split: str) -> tuple[Tensor, Tensor]:
    """Random crops for pictures of (H, W) pixels: which photograph (B,), and a map (B, 2, 3) from the picture's places,
    whose short side spans [-1, 1], to the photograph's, both of whose sides do. Random place, zoom between the whole
    photograph and a third of it, mirrored or not."""
    device = generator.device
    names = [NAMES.index(name) for name in SPLITS[split]]
    pick = torch.randint(len(names), (count,), generator=generator, device=device)
    which = torch.tensor(names, device=device)[pick]
    zoom, top, left, mirror = torch.rand(4, count, generator=generator, device=device)
    _, sizes = photographs(round(_FINE * min(size)), device)
    extent = sizes[which].float()
    picture = torch.tensor(size, device=device).expand(count, 2) / min(size)  # half sides, as H, W
    shown = picture * ((extent / picture).amin(1) * (0.35 + 0.65 * zoom))[:, None]
    centre = (shown / 2 + torch.stack([top, left], -1) * (extent - shown)) / extent * 2 - 1
    half = shown / extent / picture
    scale = torch.stack([half[:, 1] * torch.where(mirror < 0.5, -1.0, 1.0), half[:, 0]], -1)
    return which, torch.cat([torch.diag_embed(scale), centre.flip(1)[..., None]], -1)


def sample(which: Tensor, places: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) the photographs `which` (B,) at places (B, 2, H, W); beyond their borders they go on mirrored.
    `side` is the short side of the picture in pixels. Four samples a pixel are anti-aliased enough."""
    pool, sizes = photographs(round(_FINE * side), places.device)
    fine = F.interpolate(places, scale_factor=2, mode="bilinear", align_corners=False)
    folded = 1 - (torch.remainder(fine + 1, 4) - 2).abs()  # -1 .. 1 and back
    full = torch.tensor(pool.shape[2:], device=places.device)
    x, y = ((folded[:, i] + 1) * (sizes[which, 1 - i] / full[1 - i])[:, None, None] - 1 for i in (0, 1))
    grid = torch.stack([x, y], -1)
    return F.avg_pool2d(F.grid_sample(pool[which], grid, mode="bilinear", align_corners=False), 2)


def crops(count: int, size: tuple[int, int], generator: torch.Generator, split: str) -> Tensor:
    """Random crops (B, 3, H, W) as pictures."""
    which, maps = draw_crops(count, size, generator, split)
    grid = pixel_grid(size, generator.device).expand(count, -1, -1, -1)
    return sample(which, mapped(grid, maps), min(size))
