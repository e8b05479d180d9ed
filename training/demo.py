"""Small catalogs to try things on: rendered products and real photographs, with a pair for each edit.

python -m training.demo FOLDER writes
    FOLDER/products/     rendered products, some of classes the bundled base has never seen
    FOLDER/pairs/        EDIT_before.png and EDIT_after.png for each of EDITS
    FOLDER/catalog/      for each edit three pictures to be edited: a product of a class that the base was trained on,
                         two of classes it has never seen, the last before a photograph. For `tone`, photographs
    FOLDER/catalog.csv   those, with the pair that each is to be edited by; `background` leaves that to the job
    FOLDER/pairs/red-left/   pairs of an edit that the bundled base was never trained on, for training an adapter
python -m training.demo FOLDER --sheet draws
    FOLDER/sheet.png     pairs, pictures and what FOLDER/edited has of them, edit by edit

Scenes are the first ones that the seeds draw, whatever becomes of them; products stand near the middle. All photographs
are held out from training but the one in the pair of `tone`.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipelines.catalog import manifest
from training.evaluation.pictures import to_image
from training.scenes import EVERY_FAMILY, FAMILIES, SUBJECTS, Family, Scene, draw_scenes, render
from training.scenes.edits import with_patches
from training.scenes.photos import FOLDER as PHOTOGRAPHS
from training.scenes.photos import NAMES, SPLITS, draw_crops
from training.scenes.scene import object_pose
from training.scenes.uniform import Uniform
from training.sheet import SheetRow, contact_sheet

RED_LEFT = (0.95, 0.9, 0.8, 0.5, 0.4)  # parameters of the composition `recolour+translate`
PAIRS = 8  # of it
SIZE = (384, 384)  # height, width in pixels
SIZES = (SIZE, (384, 288), (288, 384))
PAIRED_PHOTO = "china"
EDITS = {  # family: its parameters in the pair
    "background": (0.09, 0.75, 0.85, 0.5),
    "recolour": (0.95, 0.9, 0.8),
    "tone": (0.25, 0.6, 0.1, 0.1),
    "add": (0.25, 0.3, 0.7, 0.15, 1.0),
    "remove": (0.2,),
    "translate": (0.5, 0.5),
    "rotate": (0.856,),
    "scale": (0.1,),
    "mirror": (2 / 3,),
    "viewpoint": (0.95, 0.0),
    "pose": (0.5, 0.2, 0.5),
}
USUAL = "background"  # the edit of rows that bring no pair
COLUMNS = ("before", "after", *("query", "result") * 3)
CELL, COLOURS = 128, 256  # of the sheet: pixels, and colours of its palette


def write_demo(folder: Path) -> None:
    """Write the demo catalog; the same files every time."""
    for seed, (name, parameters) in enumerate(EDITS.items(), start=7):
        generator = torch.Generator().manual_seed(seed)
        _write_pair(folder / "pairs", name, torch.tensor([parameters]), generator)
        _write_queries(folder / "catalog" / name, name, generator)
    _write_table(folder)
    generator = torch.Generator().manual_seed(6)
    _write_pairs(folder / "pairs" / "red-left", generator)
    for index, product in enumerate(name for classes in SUBJECTS["products"] for name in classes):
        size = SIZES[index % len(SIZES)]
        _save(render(_shot(product, size, generator), size)[0], folder / f"products/{product}.png")


def _write_pair(folder: Path, name: str, parameters: Tensor, generator: torch.Generator) -> None:
    family = FAMILIES[name]
    scene, size = _subject(family, False, generator)[1], SIZE
    if family.on_photos:
        scene, size = _photographed(scene, PAIRED_PHOTO)
    _save(render(scene, size)[0], folder / f"{name}_before.png")
    _save(render(family.apply(scene, parameters), size)[0], folder / f"{name}_after.png")


def _photographed(scene: Scene, name: str) -> tuple[Scene, tuple[int, int]]:
    """A whole photograph instead of what a scene draws, and its height and width."""
    with Image.open(PHOTOGRAPHS / f"{name}.jpg") as photo:
        width, height = photo.size
    whole = torch.tensor([[min(height, width) / width, 0.0, 0.0], [0.0, min(height, width) / height, 0.0]])
    photo_index, yes = torch.tensor([NAMES.index(name)]), torch.ones(1, dtype=torch.bool)
    return scene.with_(photo=photo_index, crop=whole[None], is_photo=yes), (height, width)


def _write_queries(folder: Path, name: str, generator: torch.Generator) -> None:
    family = FAMILIES[name]
    if family.on_photos:
        folder.mkdir(parents=True, exist_ok=True)
        for index, photo in enumerate(SPLITS["held_out"], start=1):
            shutil.copy(PHOTOGRAPHS / f"{photo}.jpg", folder / f"{index} {photo}.jpg")
        return
    for index, (held_out, busy) in enumerate(((False, False), (True, False), (True, True)), start=1):
        product, scene = _subject(family, held_out, generator)
        scene = _before_photograph(scene, generator) if busy else scene
        _save(render(scene, SIZE)[0], folder / f"{index} {product}.png")


def _subject(family: Family, held_out: bool, generator: torch.Generator) -> tuple[str, Scene]:
    """What an edit can be shown on: its class, of those that training shows or never shows, and a scene."""
    classes = SUBJECTS[family.subjects][held_out]
    product = classes[int(torch.randint(len(classes), (), generator=generator))]
    scene = _shot(product, SIZE, generator)
    return product, with_patches(scene, Uniform(generator)) if family.patched else scene


def _shot(product: str, size: tuple[int, int], generator: torch.Generator) -> Scene:
    """A product near the middle of the picture, as catalogs have them."""
    scene, uniform = draw_scenes(1, size, generator, classes=(product,)), Uniform(generator)
    place, angle = uniform(1, 2, low=-0.12, high=0.12), uniform(1, low=-0.15, high=0.15)
    return scene.with_(pose=object_pose(place, angle, uniform(1, low=0.75, high=1.05), scene.handedness))


def _before_photograph(scene: Scene, generator: torch.Generator) -> Scene:
    which, crop = draw_crops(1, SIZE, generator, "held_out")
    return scene.with_(photo=which, crop=crop, contrast=torch.ones(1))


def _write_table(folder: Path) -> None:
    with (folder / "catalog.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("uri", "before", "after"))
        for name in EDITS:
            pair = [f"pairs/{name}_{side}.png" if name != USUAL else "" for side in ("before", "after")]
            for picture in sorted((folder / "catalog" / name).iterdir()):
                table.writerow((picture.relative_to(folder).as_posix(), *pair))


def _write_pairs(folder: Path, generator: torch.Generator) -> None:
    scenes = draw_scenes(PAIRS, SIZE, generator)
    edited = EVERY_FAMILY["recolour+translate"].apply(scenes, torch.tensor([RED_LEFT]).expand(PAIRS, -1))
    for index, sides in enumerate(zip(render(scenes, SIZE), render(edited, SIZE), strict=True), start=1):
        for role, picture in zip(("before", "after"), sides, strict=True):
            _save(picture, folder / f"{index}_{role}.png")


def _save(picture: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(picture).save(path)


def write_sheet(folder: Path) -> Path:
    """Draw each edit's pair, pictures and results, as far as the job over the table is done; returns where."""
    results = manifest.read(str(folder / "edited/manifest"), ("uri", "result_uri")).to_pydict()
    made = dict(zip(results["uri"], results["result_uri"], strict=True))
    rows = []
    for name in EDITS:
        pair = [str(folder / f"pairs/{name}_{side}.png") for side in ("before", "after")]
        queries = [str(path.resolve()) for path in sorted((folder / "catalog" / name).iterdir())]
        shown = [*pair, *(path for query in queries for path in (query, made.get(query)))]
        rows.append(SheetRow(name, [Image.open(path) if path else None for path in shown]))
    sheet = contact_sheet(COLUMNS, rows, CELL)
    palette = sheet.quantize(COLOURS, kmeans=2)
    place = folder / "sheet.png"
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(place, optimize=True)
    return place


def _told(folder: Path, sheet: bool) -> str:
    if sheet:
        return f"all edits       {write_sheet(folder)}"
    write_demo(folder)
    return f"Products rendered here; photographs: {', '.join(SPLITS['held_out'])}."


if __name__ == "__main__":
    sys.stdout.write(_told(Path(sys.argv[1]), "--sheet" in sys.argv) + "\n")
