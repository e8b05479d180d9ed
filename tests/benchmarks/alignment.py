"""How often is an edit taken for misalignment? `python -m tests.benchmarks.alignment [--count 500] [--folder PAIRS]`

Counts the pairs that `measure` calls misaligned: of every spatial family of the scenes; of objects that move, turn and
grow by as little as a camera does; of a folder of real pairs, where there is one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor

from pipelines.pairs.alignment import measure
from pipelines.pairs.check import check_pairs
from training.evaluation.suite import to_image
from training.scenes import EVERY_FAMILY, draw_parameters, draw_subjects, render
from training.scenes.edits import _moved, _signed, _turn
from training.scenes.scene import Scene

SPATIAL = (
    *("translate", "rotate", "scale", "mirror", "viewpoint", "pose", "bend", "swirl", "lid"),
    *("background+translate", "recolour+scale", "recolour+translate"),
)
BATCH = 25


def shift_a_little(scene: Scene, p: Tensor) -> Scene:
    """By 1 to 8 % of the side."""
    angle, distance = p[:, 0] * 2 * torch.pi, 0.02 + 0.14 * p[:, 1]
    return _moved(scene, shift=torch.stack([torch.cos(angle), torch.sin(angle)], -1) * distance[:, None])


def turn_a_little(scene: Scene, p: Tensor) -> Scene:
    """By 0.6 to 5 degrees."""
    return _moved(scene, _turn(_signed(p[:, 0], 0.01, 0.09)))


def scale_a_little(scene: Scene, p: Tensor) -> Scene:
    """By 1 to 15 %."""
    factor = torch.exp2(-_signed(p[:, 0], 0.014, 0.2))
    return _moved(scene, torch.diag_embed(torch.stack([factor, factor], -1)))


EDITS: dict[str, tuple[str, Callable[[Scene, Tensor], Scene]]] = {
    "a small shift": ("translate", shift_a_little),
    "a small turn": ("translate", turn_a_little),
    "a small scale": ("translate", scale_a_little),
    **{name: (name, EVERY_FAMILY[name].apply) for name in SPATIAL},
}


def drawn(name: str, count: int, side: int) -> Iterator[tuple[Image.Image, Image.Image]]:
    """`count` pairs of an edit, the same every time."""
    family, apply = EDITS[name]
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    for start in range(0, count, BATCH):
        number = min(BATCH, count - start)
        parameters = draw_parameters(EVERY_FAMILY[family], number, generator)
        scene = draw_subjects(EVERY_FAMILY[family], number, (side, side), generator)
        both = (render(each, (side, side)).clamp(0, 1) for each in (scene, apply(scene, parameters)))
        for before, after in zip(*both, strict=True):
            yield to_image(before), to_image(after)


def main() -> None:
    """One line for each edit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--folder", help="of NAME_before.* and NAME_after.*")
    asked = parser.parse_args()
    for name in EDITS:
        began = time.process_time()
        found = [measure(*pair) for pair in drawn(name, asked.count, asked.side)]
        alarms = sum(bool(each and each.off) for each in found)
        seconds = (time.process_time() - began) / len(found)
        print(f"{name}: {alarms} of {len(found)} called misaligned, {seconds:.3f} s a pair", flush=True)
    for each in check_pairs(asked.folder, 10**8) if asked.folder else ():
        if each.code or each.note:
            print(f"{each.name}: {each.reason or each.note}")


if __name__ == "__main__":
    main()
