"""What is measured: anything that edits the queries of a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from pipelines.transfer import Editor
from training.evaluation.cases import Case, Trial
from training.evaluation.pictures import to_image
from training.evaluation.scores import hedge, luckiest


@dataclass(frozen=True)
class Answer:
    """What became of a query with the right and with the wrong pair; not everybody tries the wrong one."""

    right: Image.Image
    wrong: Image.Image | None


Steps = int | None  # None for what has no steps
Answers = dict[Steps, Answer]  # empty where there is none


class System(Protocol):
    """Anything that edits: what it makes of each case of a trial, at these numbers of steps."""

    def answer(self, trial: Trial, counts: tuple[Steps, ...]) -> list[Answers]: ...


@dataclass(frozen=True)
class Edited:
    """An editor; the right and the wrong pair get the same noise."""

    editor: Editor

    def answer(self, trial: Trial, counts: tuple[Steps, ...]) -> list[Answers]:
        before, queries = to_image(trial[0].before), [to_image(case.query) for case in trial]
        seeds = [case.index for case in trial]
        prefixes = [
            self.editor.remember([(before, to_image(after))]) for after in (trial[0].after, trial[0].wrong_after)
        ]
        made = {
            steps: [self.editor.edit(queries, prefix, seeds=seeds, steps=steps) for prefix in prefixes]
            for steps in counts
        }
        return [
            {steps: Answer(right[place], wrong[place]) for steps, (right, wrong) in made.items()}
            for place in range(len(trial))
        ]


@dataclass(frozen=True)
class Baseline:
    """What needs no model; see `BASELINES`."""

    paint: Callable[[Case], tuple[Tensor, Tensor]]

    def answer(self, trial: Trial, counts: tuple[Steps, ...]) -> list[Answers]:
        return [dict.fromkeys(counts, Answer(*map(to_image, self.paint(case)))) for case in trial]


def _twice(pixels: Tensor) -> tuple[Tensor, Tensor]:
    return pixels, pixels


BASELINES = {
    "copy": Baseline(lambda case: _twice(case.query)),  # changes nothing
    "blind": Baseline(lambda case: _twice(hedge(case.alternatives))),  # knows the kind of edit, and hedges
    "oracle": Baseline(lambda case: _twice(luckiest(case.alternatives))),  # knows the kind of edit, and is lucky
    "perfect": Baseline(lambda case: (case.truth, case.alternatives[1])),  # does what either pair shows
}
