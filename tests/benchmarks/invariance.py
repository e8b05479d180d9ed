"""What batch invariance costs on a CPU: batches that share products, batches that do not, and images one by one."""

import time
from math import isqrt
from unittest.mock import patch

from torch import nn

from pipelines.transfer import Editor, Prefix
from pipelines.transfer.invariance import BatchInvariantLinear
from tests.benchmarks.attention import pictures

SIZES = ((16, 48), (32, 48), (64, 64))  # pixels: 3, 6 and 16 tokens; and the base's own
BATCH, STEPS, ROUNDS = 8, 4, 12


def run() -> None:
    editor = Editor.load()
    side = isqrt(editor.max_area)
    shown = pictures(2, side)
    prefix = editor.remember([(shown[0], shown[1])])
    print(f"batch {BATCH}, {STEPS} steps, the best of {ROUNDS} rounds in turn; 1 is a batch that shares products\n")
    print("| tokens | shared ms/image | each its own | one by one |\n| ---: | ---: | ---: | ---: |")
    for size in (*SIZES, (side, side)):
        queries = [picture.resize(size) for picture in pictures(BATCH, side)]
        shared, own, alone = _best(editor, prefix, queries)
        tokens = size[0] * size[1] // 256
        print(f"| {tokens} | {shared / BATCH * 1e3:.1f} | {own / shared:.2f} | {alone / shared:.2f} |")


def _best(editor: Editor, prefix: Prefix, queries: list) -> tuple[float, float, float]:
    def seconds(batch: int) -> float:
        editor.batch_size, began = batch, time.perf_counter()
        editor.edit(queries, prefix, seeds=range(BATCH), steps=STEPS)
        return time.perf_counter() - began

    best = [float("inf")] * 3
    for _ in range(ROUNDS + 1):
        with patch.object(BatchInvariantLinear, "forward", nn.Linear.forward):  # as torch does by itself
            best[0] = min(best[0], seconds(BATCH))
        best[1:] = [min(best[1], seconds(BATCH)), min(best[2], seconds(1))]
    return best[0], best[1], best[2]
