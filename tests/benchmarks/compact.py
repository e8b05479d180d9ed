"""Compact pairs on the bundled base, which was not trained for them: what they save, and what they cost in quality."""

import time
from collections.abc import Callable
from functools import partial
from math import isqrt
from statistics import fmean

import torch

from pipelines.transfer import Editor
from training.evaluation.plan import Plan
from training.evaluation.suite import evaluate_scenes, to_image
from training.scenes import FAMILIES, draw_tuples

STEPS, ROUNDS, CASES = 8, 5, 16


def run() -> None:
    torch.set_num_threads(1)
    print(f"one pair, one image, {STEPS} steps, best of {ROUNDS} rounds in turn, one thread\n")
    print("| side | compact | pair tokens | cache MB | remembering ms | is faster | edit ms | is faster |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    trained = isqrt(Editor.load().max_area)
    for side in (trained, 2 * trained):
        _tell_speed(side)
    print(f"\nsplit objects, trained families, {CASES} cases each\n")
    print("| compact | right dB | right - wrong dB | changed dB | recovered | guessing |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for compact in (1, 2):
        _tell_quality(compact)


def _tell_speed(side: int) -> None:
    drawn = draw_tuples(FAMILIES["background"], 1, 3, (side, side), torch.Generator().manual_seed(0))
    before, after, query = (to_image(image) for image in drawn.after[0])
    editors = {compact: Editor.load(compact=compact, max_area=side * side) for compact in (1, 2)}
    prefixes = {compact: editor.remember([(before, after)]) for compact, editor in editors.items()}

    def editing(compact: int) -> Callable[[], object]:
        return lambda: editors[compact].edit([query], prefixes[compact], seeds=[0], steps=STEPS)

    remember = _in_turn({compact: partial(editor.remember, [(before, after)]) for compact, editor in editors.items()})
    edit = _in_turn({compact: editing(compact) for compact in editors})
    for compact, prefix in prefixes.items():
        tokens = sum(panel.tokens for pair in prefix.layout((1, 1)).pairs for panel in pair)
        print(
            f"| {side} | {compact} | {tokens} | {prefix.nbytes / 1e6:.3f}"
            f" | {remember[compact] * 1e3:.1f} | {remember[1] / remember[compact]:.2f}x"
            f" | {edit[compact] * 1e3:.1f} | {edit[1] / edit[compact]:.2f}x |"
        )


def _in_turn(works: dict[int, Callable[[], object]]) -> dict[int, float]:
    """Best seconds of each, after a warm-up."""
    best = dict.fromkeys(works, float("inf"))
    for round_ in range(ROUNDS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if round_:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def _tell_quality(compact: int) -> None:
    plan = Plan(families=tuple(FAMILIES), cases=CASES)
    scores = [row.scores for row in evaluate_scenes(Editor.load(compact=compact), plan)]
    mean = {
        name: fmean(getattr(each, name) for each in scores)
        for name in ("right", "margin", "changed", "recovered", "chance")
    }
    print(
        f"| {compact} | {mean['right']:.2f} | {mean['margin']:.2f} | {mean['changed']:.2f}"
        f" | {mean['recovered']:.0%} | {mean['chance']:.0%} |"
    )
