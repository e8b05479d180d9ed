"""Crops of real photographs that come inside scikit-image and scikit-learn; nothing is downloaded.

Training: rocket, hubble, retina, brick (scikit-image, public domain or CC0; retina CC BY),
china and flower (scikit-learn, CC BY). Held out, for evaluation and the demo: chelsea, coffee, astronaut.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from infra.errors import UsageError

SPLITS = {
    "train": (
        *(("skimage", f"data/{name}") for name in ("rocket.jpg", "hubble_deep_field.jpg", "retina.jpg", "brick.png")),
        ("sklearn", "datasets/images/china.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
    ),
    "held_out": (
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/astronaut.png"),
    ),
}
_WORKING_SIDE = 320
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def photo_path(package: str, relative: str) -> Path:
    """Where an installed package keeps a photograph; raises `UsageError` when it is not installed."""
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / relative if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise UsageError(
            f"The photograph {relative} comes with {_DISTRIBUTIONS[package]}, which is not installed."
            " Run: pip install 'edit-transfer[scenes]'"
        )
    return path


@lru_cache(maxsize=8)
def photographs(split: str, device: torch.device) -> tuple[Tensor, ...]:
    """All photographs of a split as (3, H, W) in [0, 1], short side 320 px at most."""
    return tuple(_load(photo_path(*where)).to(device) for where in SPLITS[split])


def _load(path: Path) -> Tensor:
    image = Image.open(path).convert("RGB")
    scale = min(1.0, _WORKING_SIDE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def crops(count: int, size: tuple[int, int], generator: torch.Generator, split: str) -> Tensor:
    """Random crops (B, 3, H, W): random place, zoom between the whole photograph and a third of it, mirror."""
    device = generator.device
    pool = photographs(split, device)
    which = torch.randint(len(pool), (count,), generator=generator, device=device).tolist()
    draws = torch.rand(count, 4, generator=generator, device=device).tolist()
    return torch.stack([_crop(pool[i], size, draw) for i, draw in zip(which, draws, strict=True)])


def _crop(photo: Tensor, size: tuple[int, int], draw: list[float]) -> Tensor:
    height, width = size
    largest = min(photo.shape[1] / height, photo.shape[2] / width)
    zoom = max(largest * (0.35 + 0.65 * draw[0]), 1.0)
    rows, columns = int(height * zoom), int(width * zoom)
    top, left = int(draw[1] * (photo.shape[1] - rows)), int(draw[2] * (photo.shape[2] - columns))
    patch = photo[None, :, top : top + rows, left : left + columns]
    patch = F.interpolate(patch, size, mode="bilinear", antialias=True, align_corners=False)[0]
    return patch.flip(-1) if draw[3] < 0.5 else patch
