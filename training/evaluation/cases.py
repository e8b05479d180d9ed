"""The cases of the scenes benchmark, rendered with exact ground truth.

Letters: K alternatives, Q queries of a pair, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.evaluation.pictures import eight_bits
from training.evaluation.plan import QUERIES, SPLITS, Ask, Split
from training.scenes import (
    EVERY_FAMILY,
    Family,
    Scene,
    draw_parameters,
    draw_subjects,
    parameter_distance,
    render,
)

VERSION = 1  # of the benchmark: another one whenever scenes, cases or scores change, as their numbers do not compare
ALTERNATIVES = 8  # truths to choose from, the demonstrated one among them
WRONG_DISTANCE = 0.25  # of a wrong pair's parameters: at least one of them is this far from the demonstrated one
POOL = 64  # draws from which alternatives are picked


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images (3, H, W) in [0, 1], of 8 bits. `alternatives` (K, 3, H, W) are truths for other parameters, `edits`
    (K, dims): first the right one's, then that of the wrong pair, then others."""

    split: str
    family: str
    index: int
    before: Tensor
    after: Tensor
    wrong_after: Tensor
    query: Tensor
    alternatives: Tensor
    edits: Tensor

    @property
    def truth(self) -> Tensor:
        return self.alternatives[0]

    @property
    def id(self) -> str:
        return case_id(self.split, self.family, self.index)

    @property
    def digest(self) -> str:
        """Hex SHA-256 over its pictures."""
        digest = hashlib.sha256()
        for pixels in (self.before, self.after, self.wrong_after, self.query, self.alternatives):
            digest.update((pixels * 255).round().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


Trial = tuple[Case, ...]  # one pair, and what is asked of it


class Cases(Protocol):
    """Where cases come from."""

    def trial(self, ask: Ask) -> Trial: ...


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Cases rendered on the spot: the same seed, size and `ask` give the same ones.

    `demonstrated` (dims,) are the parameters that every pair shows, for a model that was trained on that edit alone;
    without it every pair has its own.

    Two neighbouring cases have pair and parameters in common and differ in the query, its colours, light and pose, so
    means over N cases are as uncertain as over N/2 to N independent ones.
    """

    seed: int
    size: int
    demonstrated: Tensor | None = None

    def trial(self, ask: Ask) -> Trial:
        """Draw one."""
        generator = _generator(ask.family, ask.split, self.seed, ask.first)
        with torch.inference_mode(False):  # photographs are kept, and may be learned from later
            return _draw_trial(ask, (self.size, self.size), generator, self.demonstrated)


def draw_trials(family: str, split: str, *, count: int, seed: int, size: int) -> Iterator[Trial]:
    """`count` cases, two for each pair."""
    drawn = Drawn(seed=seed, size=size)
    for first in range(0, count, QUERIES):
        yield drawn.trial(Ask(split=split, family=family, first=first, queries=min(QUERIES, count - first)))


def case_id(split: str, family: str, index: int) -> str:
    """A name that suits files and addresses."""
    return f"{split}_{family.replace('+', '-')}_{index:03d}"


def digest_of(digests: list[str]) -> str:
    """Of many cases, in order: hex SHA-256. Numbers compare where it is the same."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _draw_trial(ask: Ask, size: tuple[int, int], generator: torch.Generator, demonstrated: Tensor | None) -> Trial:
    family, split = EVERY_FAMILY[ask.family], SPLITS[ask.split]
    if demonstrated is None:
        edits_KD = draw_edits(family, generator, held_out=split.held_out_parameters)
    else:
        edits_KD = edits_about(family, demonstrated[None], generator)
    pair, *asked = (_draw_subject(family, split, size, generator) for _ in range(1 + ask.queries))
    shown = {
        "before": eight_bits(render(pair, size)[0]),
        "after": _rendered(family, pair, edits_KD[0], size),
        "wrong_after": _rendered(family, pair, edits_KD[1], size),
    }
    return tuple(
        Case(
            split=ask.split,
            family=ask.family,
            index=index,
            query=eight_bits(render(query, size)[0]),
            alternatives=torch.stack([_rendered(family, query, edit, size) for edit in edits_KD]),
            edits=edits_KD,
            **shown,
        )
        for index, query in enumerate(asked, start=ask.first)
    )


def _draw_subject(family: Family, split: Split, size: tuple[int, int], generator: torch.Generator) -> Scene:
    return draw_subjects(family, 1, size, generator, split.look)


def _rendered(family: Family, scene: Scene, edit: Tensor, size: tuple[int, int]) -> Tensor:
    return eight_bits(render(family.apply(scene, edit[None]), size)[0])


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
