"""What each tuning saves and costs on the bundled base: time side by side, bytes, edits of scenes with ground truth."""

import time
from dataclasses import dataclass
from math import isqrt
from statistics import fmean

import torch

from pipelines.transfer import Editor, Tuning
from pipelines.transfer.footprint import layer_bytes
from training.evaluation.plan import Plan
from training.evaluation.suite import evaluate_scenes, to_image
from training.scenes import FAMILIES, draw_tuples

IMAGES, ROUNDS, CASES = 8, 5, 12
FEW, MANY = 8, 28  # steps: as many as the step cache runs of the other


@dataclass(frozen=True)
class Way:
    """A tuning, and the denoising steps that it is asked for; None for the base's own."""

    name: str
    tuned: Tuning
    steps: int | None = None


WAYS = (
    Way("plain", Tuning()),
    Way("float8", Tuning(weights="float8")),
    Way("int8", Tuning(weights="int8")),
    Way("compile", Tuning(compile=True)),
    Way(f"plain, {MANY} steps", Tuning(), MANY),
    Way(f"plain, {FEW} steps", Tuning(), FEW),
    Way(f"taylorseer, {MANY} steps", Tuning(step_cache="taylorseer"), MANY),
    Way(f"compile, {MANY} steps", Tuning(compile=True), MANY),
)


def run() -> None:
    torch.set_num_threads(1)
    editors = {way: Editor.load(tuned=way.tuned) for way in WAYS}
    seconds = _seconds(editors)
    print(f"{IMAGES} images, best of {ROUNDS} rounds in turn, one thread, float32;")
    print(f"split objects, trained families, {CASES} cases each; faster than plain at as many steps\n")
    print("| way | ms/image | faster | block weights MB | right dB | changed dB | recovered |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for way, editor in editors.items():
        plain = next(each for each in WAYS if each.tuned == Tuning() and each.steps == way.steps)
        weights = layer_bytes(Editor.load().family.transformer, way.tuned.weights)
        size = sum(size for name, size in weights.items() if "transformer_blocks." in name)
        print(
            f"| {way.name} | {seconds[way] * 1e3 / IMAGES:.1f} | {seconds[plain] / seconds[way]:.2f}x"
            f" | {size / 1e6:.1f} | {_quality(editor, way.steps)} |",
            flush=True,
        )


def _seconds(editors: dict[Way, Editor]) -> dict[Way, float]:
    """Best seconds of a batch each, after a warm-up."""
    side = isqrt(next(iter(editors.values())).max_area)
    drawn = draw_tuples(FAMILIES["background"], IMAGES, 3, (side, side), torch.Generator().manual_seed(0))
    before, after = to_image(drawn.before[0, 0]), to_image(drawn.after[0, 0])
    queries = [to_image(image) for image in drawn.before[:, 2]]
    best = dict.fromkeys(editors, float("inf"))
    for round_ in range(ROUNDS + 1):
        for way, editor in editors.items():
            prefix = editor.remember([(before, after)])
            began = time.perf_counter()
            editor.edit(queries, prefix, seeds=list(range(IMAGES)), steps=way.steps)
            if round_:
                best[way] = min(best[way], time.perf_counter() - began)
    return best


def _quality(editor: Editor, steps: int | None) -> str:
    plan = Plan(families=tuple(FAMILIES), cases=CASES, steps=(steps,) if steps else ())
    scores = [row.scores for row in evaluate_scenes(editor, plan)]
    right, changed, recovered = (
        fmean(getattr(each, name) for each in scores) for name in ("right", "changed", "recovered")
    )
    return f"{right:.2f} | {changed:.2f} | {recovered:.0%}"
