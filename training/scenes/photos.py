"""Crops of real photographs; `photographs/README.md` says whose they are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).parent / "photographs"
SPLITS = {
    "train": ("rocket", "hubble", "retina", "brick", "china", "flower"),
    "held_out": ("chelsea", "coffee", "astronaut"),
}


@lru_cache(maxsize=8)
def photographs(split: str, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All photographs of a split, short side `side` px at most: (N, 3, H, W) in [0, 1], zeros beyond each one's own
    size, and those sizes (N, 2) as H, W."""
    loaded = [_load(FOLDER / f"{name}.jpg", side) for name in SPLITS[split]]
    sizes = torch.tensor([photo.shape[1:] for photo in loaded])
    height, width = sizes.amax(0).tolist()
    padded = [F.pad(photo, (0, width - photo.shape[2], 0, height - photo.shape[1])) for photo in loaded]
    return torch.stack(padded).to(device), sizes.to(device)


def _load(path: Path, side: int) -> Tensor:
    image = Image.open(path).convert("RGB")
    scale = min(1.0, side / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def crops(count: int, size: tuple[int, int], generator: torch.Generator, split: str) -> Tensor:
    """Random crops (B, 3, H, W): random place, zoom between the whole photograph and a third of it, mirror."""
    height, width = size
    device = generator.device
    if not count:
        return torch.zeros(0, 3, height, width, device=device)
    pool, sizes = photographs(split, 5 * min(size) // 2, device)
    which = torch.randint(len(pool), (count,), generator=generator, device=device)
    zoom, top, left, mirror = torch.rand(4, count, generator=generator, device=device)
    extent = sizes[which].float()
    crop = torch.stack([torch.full_like(zoom, height), torch.full_like(zoom, width)], -1)
    crop = crop * ((extent / crop).amin(1) * (0.35 + 0.65 * zoom))[:, None]
    centre = crop / 2 + torch.stack([top, left], -1) * (extent - crop)
    half = crop / 2 * torch.stack([torch.ones_like(mirror), torch.where(mirror < 0.5, -1.0, 1.0)], -1)
    full = torch.tensor(pool.shape[2:], device=device)
    y, x = ((_ticks(n, device) * half[:, i, None] + centre[:, i, None]) / full[i] * 2 - 1 for i, n in enumerate(size))
    grid = torch.stack([x[:, None, :].expand(-1, len(y[0]), -1), y[:, :, None].expand(-1, -1, len(x[0]))], -1)
    return F.avg_pool2d(F.grid_sample(pool[which], grid, mode="bilinear", align_corners=False), 2)


def _ticks(count: int, device: torch.device) -> Tensor:
    """Twice `count` sample places over [-1, 1]: averaged two by two, they are anti-aliased enough."""
    return (torch.arange(2 * count, device=device) + 0.5) / count - 1
