"""Catalogs for benchmarks: rendered products, a pair beside them."""

from pathlib import Path

import torch

from training.evaluation.suite import to_image
from training.scenes import FAMILIES, draw_tuples


def write_catalog(folder: Path, images: int, size: tuple[int, int] = (64, 64)) -> Path:
    """Write before.png and after.png of 64 px, and `images` JPEG queries of this width and height into the folder
    returned."""
    drawn = draw_tuples(FAMILIES["background"], 1, images + 1, (64, 64), torch.Generator().manual_seed(0))
    to_image(drawn.before[0, 0]).save(folder / "before.png")
    to_image(drawn.after[0, 0]).save(folder / "after.png")
    catalog = folder / "catalog"
    catalog.mkdir()
    for index in range(images):
        to_image(drawn.before[0, index + 1]).resize(size).save(catalog / f"{index:05}.jpg", quality=95)
    return catalog
