"""How many pairs does an adapter need? `python -m tests.benchmarks.pairs FILE.json --family viewpoint`

Every seed draws one edit of a family that the base was never shown. An adapter learns it from so many pairs, always in
the same number of steps (which take the same time, whatever the number of pairs), and is asked to do it to objects of
classes that neither it nor the base has seen. The base alone is asked the same. What the base could do before is
measured with the adapter worn. FILE gathers one row for each training; rows that are there already are not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
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


@dataclass(frozen=True)
class Task:
    """One training: so many pairs of one edit, drawn by the seed."""

    family: str
    pairs: int
    seed: int
    steps: int
    cases: int
    old: bool


COUNTS = (1, 2, 5, 10, 20, 42)
SIDE = 64
OLD = ("background", "tone", "recolour", "add", "remove", "translate")


def scene_pairs(family: str, count: int, seed: int) -> tuple[list[Pair], torch.Tensor]:
    """`count` pairs of one random edit on training objects, and its parameters; more pairs begin with fewer."""
    kind, generator = EVERY_FAMILY[family], _generator(family, seed)
    parameters = draw_parameters(kind, 1, generator)
    scenes = draw_subjects(kind, max(COUNTS), (SIDE, SIDE), generator)
    edited = kind.apply(scenes, parameters.expand(max(COUNTS), -1))
    images = zip(render(scenes, (SIDE, SIDE))[:count], render(edited, (SIDE, SIDE))[:count], strict=True)
    return [
        Pair(f"{family} {index}", "", to_image(before), to_image(after), ("", ""), (f"{family} {seed} {index}", ""))
        for index, (before, after) in enumerate(images)
    ], parameters[0]


def _generator(family: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(hashlib.sha256(f"{family}/{seed}".encode()).hexdigest()[:12], 16))


def measure(task: Task) -> dict[str, Any]:
    """Train one adapter, and score it, the base alone, and what the base could do before."""
    torch.set_num_threads(1)
    pairs, parameters = scene_pairs(task.family, task.pairs, task.seed)
    editor, told = Editor.load(), bases.settings_of(bases.find_base(None))
    asked = Plan(families=(task.family,), cases=task.cases, seed=task.seed)
    alone = next(iter(evaluate_scenes(editor, asked, demonstrated=parameters)))
    options = Options(name="", pairs="", registry="", workers=1, seed=task.seed, steps=task.steps)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = kept_pairs(None, told, 10**9)
        fit = Fit(editor, pairs, kept, settings_for(options, pairs, told), Path(folder))
        *_, last = fit.run()
    seconds = time.monotonic() - began
    worn = next(iter(evaluate_scenes(editor, asked, demonstrated=parameters)))
    old = evaluate_scenes(editor, Plan(families=OLD, cases=task.cases)) if task.old else ()
    return vars(task) | {
        "steps_taken": last.progress.step,
        "seconds": round(seconds, 1),
        "alone": vars(alone.scores),
        "worn": vars(worn.scores),
        "old": {row.family: vars(row.scores) for row in old},
    }


def main() -> None:
    """Measure what is asked for and not there yet, two trainings at a time, one thread each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--family", action="append", required=True)
    parser.add_argument("--pairs", action="append", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--cases", type=int, default=48)
    parser.add_argument("--old", action="store_true", help="what became of the old families")
    asked = parser.parse_args()
    rows = json.loads(asked.file.read_text()) if asked.file.exists() else []
    tasks = [
        Task(family, pairs, seed, asked.steps, asked.cases, asked.old)
        for seed in range(asked.seeds)
        for family in asked.family
        for pairs in asked.pairs or COUNTS
    ]
    done = [{name: row[name] for name in vars(tasks[0])} for row in rows]
    left = [task for task in tasks if vars(task) not in done]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for ended in as_completed([pool.submit(measure, task) for task in left]):
            rows.append(ended.result())
            asked.file.write_text(json.dumps(rows, indent=1))
            print(told(rows[-1]), flush=True)


def told(row: dict[str, Any]) -> str:
    """One line for people."""
    alone, worn = row["alone"], row["worn"]
    old = "  ".join(f"{family} {scores['recovered']:.0%}" for family, scores in row["old"].items())
    return (
        f"{row['family']}, {row['pairs']} pairs, seed {row['seed']}: recovered {alone['recovered']:.0%} ->"
        f" {worn['recovered']:.0%}, changed region {alone['changed']:.1f} -> {worn['changed']:.1f} dB,"
        f" {row['steps_taken']} steps, {row['seconds']:.0f} s  {old}"
    )


if __name__ == "__main__":
    main()
