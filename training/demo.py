"""Small catalogs to try things on: rendered products and crops of real photographs, with a pair for each edit.

python -m training.demo FOLDER writes
    FOLDER/products/     rendered products, some of classes the bundled base has never seen
    FOLDER/photographs/  crops of photographs the bundled base has never seen
    FOLDER/EDIT_before.png, EDIT_after.png for each of EDITS
    FOLDER/pairs/red-left/   pairs of an edit that the bundled base was never trained on, for training an adapter
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from training.evaluation.suite import to_image
from training.scenes import EVERY_FAMILY, FAMILIES, SUBJECTS, draw_scenes, render
from training.scenes.photos import SPLITS, crops

RED_LEFT = (0.95, 0.9, 0.8, 0.5, 0.4)  # parameters of the composition `recolour+translate`
PAIRS = 8  # of it
SIZES = ((64, 64), (80, 48), (48, 80))  # height, width in pixels
PER_PRODUCT, PER_SIZE = 2, 4
EDITS = {  # family: its parameters in the pair
    "background": (0.09, 0.75, 0.85, 0.5),
    "recolour": (0.95, 0.9, 0.8),
    "add": (0.25, 0.3, 0.7, 0.15, 1.0),
    "tone": (0.75, 0.65, 0.3, 0.95),
}


def write_demo(folder: Path) -> None:
    """Write the demo catalog; the same files every time."""
    generator = torch.Generator().manual_seed(7)
    for name, parameters in EDITS.items():
        _write_pair(folder, name, torch.tensor([parameters]), generator)
    _write_pairs(folder / "pairs" / "red-left", torch.Generator().manual_seed(8))
    for product in (name for classes in SUBJECTS["products"] for name in classes):
        for index in range(PER_PRODUCT):
            size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
            picture = render(draw_scenes(1, size, generator, classes=(product,)), size)[0]
            _save(picture, folder / "products" / product / f"{product} {index + 1}.png")
    for size in SIZES:
        for index, picture in enumerate(crops(PER_SIZE, size, generator, "held_out")):
            _save(picture, folder / "photographs" / f"{size[1]}x{size[0]} {index + 1}.jpg")


def _write_pair(folder: Path, name: str, parameters: Tensor, generator: torch.Generator) -> None:
    scene = draw_scenes(1, SIZES[0], generator, classes=("bag",))
    _save(render(scene, SIZES[0])[0], folder / f"{name}_before.png")
    _save(render(FAMILIES[name].apply(scene, parameters), SIZES[0])[0], folder / f"{name}_after.png")


def _write_pairs(folder: Path, generator: torch.Generator) -> None:
    scenes = draw_scenes(PAIRS, SIZES[0], generator)
    edited = EVERY_FAMILY["recolour+translate"].apply(scenes, torch.tensor([RED_LEFT]).expand(PAIRS, -1))
    for index, sides in enumerate(zip(render(scenes, SIZES[0]), render(edited, SIZES[0]), strict=True), start=1):
        for role, picture in zip(("before", "after"), sides, strict=True):
            _save(picture, folder / f"{index}_{role}.png")


def _save(picture: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(picture).save(path, quality=95)


if __name__ == "__main__":
    write_demo(Path(sys.argv[1]))
    sys.stdout.write(f"Products rendered here; photographs cropped from {', '.join(SPLITS['held_out'])}.\n")
