"""Prefix against full attention on the bundled base: seconds per image over 1, 2 and 4 pairs."""

import time
from math import isqrt

import torch
from PIL import Image

from pipelines.transfer import Editor
from training.evaluation.suite import to_image
from training.scenes import FAMILIES, draw_tuples

BATCH, STEPS, ROUNDS = 8, 8, 3
TARGET = 2.5  # times faster, at two pairs


def run() -> None:
    torch.set_num_threads(1)
    prefix, full = Editor.load(attention="prefix"), Editor.load(attention="full")
    images = pictures(2 * 4 + BATCH, isqrt(prefix.max_area))
    print(f"batch {BATCH}, {STEPS} steps, {ROUNDS} rounds in turn, best of each, one thread; pairs remembered once\n")
    print("| pairs | full ms/image | prefix ms/image | prefix is faster | remembering ms | cache MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for pairs in (1, 2, 4):
        shown = [(images[2 * i], images[2 * i + 1]) for i in range(pairs)]
        seconds = _side_by_side([prefix, full], shown, images[-BATCH:])
        began = time.perf_counter()
        remembered = prefix.remember(shown)
        once = time.perf_counter() - began
        print(
            f"| {pairs} | {seconds[1] * 1e3:.1f} | {seconds[0] * 1e3:.1f} | {seconds[1] / seconds[0]:.2f}x"
            f" | {once * 1e3:.0f} | {remembered.nbytes / 1e6:.1f} |"
        )
    print(f"\ntarget at two pairs: {TARGET}x")


def pictures(count: int, side: int) -> list[Image.Image]:
    """So many products before backgrounds of one kind, `side` pixels wide and high."""
    drawn = draw_tuples(FAMILIES["background"], 1, count, (side, side), torch.Generator().manual_seed(0))
    return [to_image(image) for image in drawn.after[0]]


def _side_by_side(editors: list[Editor], pairs: list, queries: list[Image.Image]) -> list[float]:
    """Best seconds per image of each editor, measured in turn after a warm-up."""
    prefixes = [editor.remember(pairs) for editor in editors]
    best = [float("inf")] * len(editors)
    for round_ in range(ROUNDS + 1):
        for index, (editor, prefix) in enumerate(zip(editors, prefixes, strict=True)):
            began = time.perf_counter()
            editor.edit(queries, prefix, seeds=range(len(queries)), steps=STEPS)
            if round_:
                best[index] = min(best[index], (time.perf_counter() - began) / len(queries))
    return best
