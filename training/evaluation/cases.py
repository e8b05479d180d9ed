"""The cases of the scenes benchmark, rendered with exact ground truth.

Letters: K alternatives, Q queries of a pair, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.evaluation.plan import SPLITS
from training.scenes import (
    EVERY_FAMILY,
    HELD_OUT,
    TRAINING,
    Family,
    Scene,
    draw_parameters,
    draw_subjects,
    parameter_distance,
    render,
)

ALTERNATIVES = 8  # truths to choose from, the demonstrated one among them
WRONG_DISTANCE = 0.25  # of a wrong pair's parameters: at least one of them is this far from the demonstrated one
POOL = 64  # draws from which alternatives are picked
QUERIES = 2  # asked of each pair: remembering it costs as much as an edit does


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images (3, H, W) in [0, 1]. `alternatives` (K, 3, H, W) are truths for other parameters: first the right one's,
    then that of the wrong pair, then others."""

    before: Tensor
    after: Tensor
    wrong_after: Tensor
    query: Tensor
    alternatives: Tensor

    @property
    def truth(self) -> Tensor:
        return self.alternatives[0]


Trial = tuple[Case, ...]  # one pair, and what is asked of it


def draw_trials(
    family: str, split: str, *, count: int, seed: int, size: int, demonstrated: Tensor | None = None
) -> Iterator[Trial]:
    """`count` cases, two for each pair: the same arguments give the same cases.

    `demonstrated` (dims,) are the parameters that every pair shows, for a model that was trained on that edit alone;
    without it every pair has its own.

    Two neighbouring cases have pair and parameters in common and differ in the query, its colours, light and pose, so
    means over N cases are as uncertain as over N/2 to N independent ones.
    """
    for index in range(0, count, QUERIES):
        generator = _generator(family, split, seed, index)
        yield _draw_trial(
            EVERY_FAMILY[family], split, min(QUERIES, count - index), (size, size), generator, demonstrated
        )


def _draw_trial(
    family: Family,
    split: str,
    queries: int,
    size: tuple[int, int],
    generator: torch.Generator,
    demonstrated: Tensor | None,
) -> Trial:
    look = HELD_OUT if SPLITS[split].held_out_objects else TRAINING
    if demonstrated is None:
        edits_KD = draw_edits(family, generator, held_out=SPLITS[split].held_out_parameters)
    else:
        edits_KD = edits_about(family, demonstrated[None], generator)
    pair = draw_subjects(family, 1, size, generator, look)
    before = render(pair, size)[0]
    after, wrong_after = (render(family.apply(pair, edit[None]), size)[0] for edit in edits_KD[:2])
    asked = [draw_subjects(family, 1, size, generator, look) for _ in range(queries)]
    return tuple(
        Case(
            before=before,
            after=after,
            wrong_after=wrong_after,
            query=render(query, size)[0],
            alternatives=_render_edits(family, query, edits_KD, size),
        )
        for query in asked
    )


def _render_edits(family: Family, scene: Scene, edits_KD: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.cat([render(family.apply(scene, edit[None]), size) for edit in edits_KD])


def draw_edits(family: Family, generator: torch.Generator, *, held_out: bool) -> Tensor:
    """(K, dims) parameters: the demonstrated ones, the wrong pair's, and others; of a few choices each one once.

    The demonstrated ones are picked at random from K that were drawn alike, so a result that ignores the pair is
    nearest to them once in K cases, whatever it looks like. Held out, they come from the band and the others do not:
    there, compare with results of the wrong pair rather than with chance.
    """
    if family.choices:
        return torch.linspace(0, 1, family.choices)[torch.randperm(family.choices, generator=generator), None]
    edits_KD = _spread_out(family, draw_parameters(family, 1, generator, held_out), generator)
    if not held_out:
        edits_KD = edits_KD[torch.randperm(len(edits_KD), generator=generator)]
    return _wrong_second(family, edits_KD)


def edits_about(family: Family, first: Tensor, generator: torch.Generator) -> Tensor:
    """(K, dims) parameters of which the first (1, dims) are given, as in `draw_edits` otherwise.

    They are not picked at random among the others: compare models on such cases with each other, not with chance.
    """
    return _wrong_second(family, _spread_out(family, first, generator))


def _wrong_second(family: Family, edits_KD: Tensor) -> Tensor:
    wrong = int((parameter_distance(family, edits_KD, edits_KD[:1]) >= WRONG_DISTANCE).nonzero()[0])
    return edits_KD[[0, wrong, *(index for index in range(1, len(edits_KD)) if index != wrong)]]


def _spread_out(family: Family, first: Tensor, generator: torch.Generator) -> Tensor:
    """(K, dims) `first` and others, as far from each other as a handful of them finds room, each far from some."""
    spacing = WRONG_DISTANCE
    while True:
        pool = torch.cat([first, draw_parameters(family, POOL, generator)])
        apart = parameter_distance(family, pool[:, None], pool)
        chosen = [0]
        for index in range(1, len(pool)):
            if len(chosen) < ALTERNATIVES and apart[index, chosen].min() >= spacing:
                chosen.append(index)
        if len(chosen) == ALTERNATIVES and (apart[chosen][:, chosen].amax(1) >= WRONG_DISTANCE).all():
            return pool[chosen]
        spacing *= 0.75


def _generator(*key: object) -> torch.Generator:
    """Seeded by a digest: the first numbers of generators with neighbouring small seeds resemble each other."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
