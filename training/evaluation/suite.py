"""The scenes benchmark: is the edit read off the pair, or guessed?

Every case shows a pair of one object and a query of another. The same query is edited with a wrong pair as well: the
same object and family of edit, other parameters. A model that ignores the pair scores the same with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import torch
from PIL import Image
from torch import Tensor

from pipelines.transfer import Editor
from pipelines.transfer.invariance import editing
from training.evaluation.cases import Case, Cases, Drawn, digest_of
from training.evaluation.pictures import to_image, to_pixels
from training.evaluation.plan import SPLITS, Ask, Plan, group_of
from training.evaluation.processes import spread
from training.evaluation.scores import Scores, mean, score
from training.evaluation.systems import Answer, Answers, Edited, Steps, System


@dataclass(frozen=True, kw_only=True)
class Row:
    """The scores of one family in one split at one number of denoising steps; `cases_digest` is over the cases."""

    split: str
    family: str
    group: str
    steps: Steps
    cases_digest: str
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One case as it came out, at the first number of steps: for contact sheets, files and progress."""

    split: str
    family: str
    index: int
    id: str
    before: Image.Image
    after: Image.Image
    query: Image.Image
    truth: Image.Image
    right: Image.Image
    wrong: Image.Image | None


@dataclass(frozen=True)
class Judged:
    """One case, and what was made of it; the scores are by steps."""

    shown: Shown
    digest: str
    scores: dict[Steps, dict[str, float]]


def evaluate_scenes(
    editor: Editor,
    plan: Plan,
    shown: Callable[[Shown], None] = lambda _: None,
    demonstrated: Tensor | None = None,
) -> Iterator[Row]:
    """Score an editor on scenes drawn for it, as `evaluate` does.

    `demonstrated`: as in `Drawn`; the plan has one family then.
    """
    plan = plan.fit(editor)
    assert plan.size is not None
    rows = evaluate(Edited(editor), Drawn(seed=plan.seed, size=plan.size, demonstrated=demonstrated), plan, shown)
    for row in rows:
        yield row if demonstrated is None else replace(row, scores=replace(row.scores, chance=math.nan))


def evaluate(
    system: System,
    cases: Cases,
    plan: Plan,
    shown: Callable[[Shown], None] = lambda _: None,
    processes: int = 1,
) -> Iterator[Row]:
    """Score anything that edits, split by split and family by family; `shown` hears of every case when it is done.

    The numbers do not depend on how many `processes` share the work. Families without a single answer have no row.
    """
    judged = spread(partial(_judge, system, cases, plan.counts), plan.asks, processes)
    trials = zip(plan.asks, judged, strict=True)
    for (split, family), trials_of in groupby(trials, lambda trial: (trial[0].split, trial[0].family)):
        done: list[Judged] = []
        for _, trial in trials_of:
            for case in trial:
                shown(case.shown)
                done.append(case)
        if done:
            yield from _rows(split, family, plan.counts, done)


def _rows(split: str, family: str, counts: Iterable[Steps], done: list[Judged]) -> Iterator[Row]:
    digest = digest_of([case.digest for case in done])
    for steps in counts:
        scores = mean([case.scores[steps] for case in done])
        if SPLITS[split].held_out_parameters:
            scores = replace(scores, chance=math.nan)
        yield Row(split=split, family=family, group=group_of(family), steps=steps, cases_digest=digest, scores=scores)


def _judge(system: System, cases: Cases, counts: tuple[Steps, ...], ask: Ask) -> list[Judged]:
    """Every case of a pair for which there is an answer. One thread computes, as the number of them decides the last
    bit of a sum."""
    with editing(torch.device("cpu")):
        trial = cases.trial(ask)
        answered = zip(trial, system.answer(trial, counts), strict=True)
        return [_judged(case, answers) for case, answers in answered if answers]


def _judged(case: Case, answers: Answers) -> Judged:
    first = next(iter(answers.values()))
    return Judged(
        shown=Shown(
            split=case.split,
            family=case.family,
            index=case.index,
            id=case.id,
            before=to_image(case.before),
            after=to_image(case.after),
            query=to_image(case.query),
            truth=to_image(case.truth),
            right=first.right,
            wrong=first.wrong,
        ),
        digest=case.digest,
        scores={steps: _scored(case, answer) for steps, answer in answers.items()},
    )


def _scored(case: Case, answer: Answer) -> dict[str, float]:
    return score(case, to_pixels(answer.right), None if answer.wrong is None else to_pixels(answer.wrong))
