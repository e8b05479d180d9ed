"""How many pairs does an adapter need? `python -m tests.benchmarks.pairs FILE.jsonl [FAMILY:PAIRS:SEED ...]`

A seed draws one edit of a family that the base was never shown. An adapter learns it from so many pairs, with the
settings that are usual on the base (in one process; steps as for few pairs, so that a training takes the same time
whatever their number), and is asked to do it to objects of classes that neither it nor the base has seen. The base
alone is asked the same. With `--old`, what the base could do before is measured too, with and without the adapter.

FILE gets a line for each training as soon as it is done. What is there already is not run again, so that the same
command goes on after a stop. Without names all of `USUAL` is run, what tells most first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor, bases
from training.evaluation.plan import Plan
from training.evaluation.suite import evaluate_scenes, to_image
from training.fit.fitting import Fit
from training.fit.options import Options, settings_for
from training.fit.rehearsal import kept_pairs
from training.scenes import EVERY_FAMILY, draw_parameters, draw_subjects, render

COUNTS = (1, 2, 5, 10, 20)
COMPOSITION, RESERVED = "recolour+translate", "swirl"


@dataclass(frozen=True)
class Task:
    """One training: so many pairs of one edit, drawn by the seed."""

    family: str
    pairs: int
    seed: int

    @staticmethod
    def named(name: str) -> Task:
        """FAMILY:PAIRS:SEED."""
        family, pairs, seed = name.split(":")
        return Task(family, int(pairs), int(seed))


USUAL = [
    *(Task(family, max(COUNTS), seed) for seed in range(3) for family in (RESERVED, COMPOSITION)),
    *(Task(family, pairs, seed) for seed in range(3) for family in (RESERVED, COMPOSITION) for pairs in COUNTS[:-1]),
]


def scene_pairs(family: str, count: int, seed: int, side: int) -> tuple[list[Pair], torch.Tensor]:
    """`count` pairs of one random edit on training objects, and its parameters; more pairs begin with fewer."""
    kind, generator, most = EVERY_FAMILY[family], _generator(family, seed), max(count, *COUNTS)
    parameters = draw_parameters(kind, 1, generator)
    scenes = draw_subjects(kind, most, (side, side), generator)
    edited = kind.apply(scenes, parameters.expand(most, -1))
    images = zip(render(scenes, (side, side))[:count], render(edited, (side, side))[:count], strict=True)
    return [
        Pair(f"{family} {index}", "", to_image(before), to_image(after), ("", ""), (f"{family} {seed} {index}", ""))
        for index, (before, after) in enumerate(images)
    ], parameters[0]


def _generator(family: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(hashlib.sha256(f"{family}/{seed}".encode()).hexdigest()[:12], 16))


def measure(task: Task, cases: int, old_cases: int, known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Train one adapter, and score it, the base alone, and what the base could do before.

    `known` are rows of other trainings: the base alone is not asked twice for the same.
    """
    editor, told = Editor.load(device="cpu"), bases.settings_of(bases.find_base(None))
    pairs, parameters = scene_pairs(task.family, task.pairs, task.seed, math.isqrt(told.max_area))

    def asked() -> dict[str, Any]:
        plan = Plan(families=(task.family,), cases=cases, seed=task.seed)
        return vars(next(iter(evaluate_scenes(editor, plan, demonstrated=parameters))).scores)

    def could() -> dict[str, Any]:
        rows = evaluate_scenes(editor, Plan(families=told.rehearsal, cases=old_cases)) if old_cases else ()
        return {row.family: vars(row.scores) for row in rows}

    about = {"base": editor.revision[:12], "cases": cases, "old_cases": old_cases}
    same = [row for row in known if all(row[name] == value for name, value in about.items())]
    of_edit = [row for row in same if (row["family"], row["seed"]) == (task.family, task.seed)]
    alone = of_edit[0]["alone"] if of_edit else asked()
    old_alone = same[0]["old_alone"] if same else could()
    with tempfile.TemporaryDirectory() as folder:
        options = Options(name="", pairs="", registry="", workers=1, seed=task.seed, steps=told.adapter_steps)
        began, used = time.monotonic(), time.process_time()
        kept = kept_pairs(None, told, 10**9)
        fit = Fit(editor, pairs, kept, settings_for(options, pairs, told), Path(folder))
        *_, last = fit.run()
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - used
    return vars(task) | about | {
        "commit": _commit(),
        "steps": last.progress.step,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "alone": alone,
        "worn": asked(),
        "old_alone": old_alone,
        "old": could(),
    }  # fmt: skip


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


def rows_of(file: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    """Measure what is asked for and not there yet, one training after the other, on one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("tasks", nargs="*", type=Task.named, metavar="FAMILY:PAIRS:SEED")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--old", type=int, default=0, metavar="CASES", help="of every family that it could do before")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for task in asked.tasks or USUAL:
        rows = rows_of(asked.file)
        if any(Task(row["family"], row["pairs"], row["seed"]) == task for row in rows):
            continue
        rows.append(measure(task, asked.cases, asked.old, rows))
        asked.file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        print(told(rows[-1]), flush=True)


def told(row: dict[str, Any]) -> str:
    """One line for people."""
    alone, worn = row["alone"], row["worn"]
    return (
        f"{row['family']}, {row['pairs']} pairs, seed {row['seed']}: recovered {alone['recovered']:.0%} ->"
        f" {worn['recovered']:.0%}, changed region {alone['changed']:.1f} -> {worn['changed']:.1f} dB,"
        f" {row['steps']} steps, {row['cpu_seconds']:.0f} s of CPU, {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
