"""Which pairs and queries a step learns from: every ordered (pair, query) of one edit, at random.

N pairs of an edit give N(N-1) such tuples (RelationAdapter, arXiv 2506.02528); a lone pair is its own query, under
another view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.transfer.layout import Grid
from training.fit.views import Looks, View


@dataclass(frozen=True)
class Group:
    """Queries of one shape that are edited behind the same pairs. `query` and `truth` are clean tokens (BSC)."""

    pairs: tuple[View, ...]
    query: Tensor
    truth: Tensor
    grid: Grid


class Draw:
    """Draws groups; the same generator state gives the same group.

    Args:
        looks: the views of every pair.
        queries: in a group.
        shown: pairs in front of the queries, at most.
    """

    def __init__(self, looks: Sequence[Looks], queries: int, shown: int) -> None:
        self.looks = looks
        self.queries = queries
        self.shown = shown
        self.of_edit = {edit: [look for look in looks if look.edit == edit] for edit in Counter(_edits(looks))}

    def __call__(self, generator: torch.Generator) -> Group:
        edit = self.looks[below(len(self.looks), generator)].edit
        pairs = self.of_edit[edit]
        if len(pairs) == 1:
            return self._alone(pairs[0], generator)
        order = torch.randperm(len(pairs), generator=generator).tolist()
        shown = 1 + below(min(self.shown, len(pairs) - 1), generator)
        asked = [pairs[index] for index in order[shown:]]
        grid = asked[0].views[0].grid  # the first one asked decides the shape of the group
        asked = [pair for pair in asked if pair.views[0].grid == grid]
        return _group(
            [_any(pairs[index].views, generator) for index in order[:shown]],
            [_any(asked[index % len(asked)].views, generator) for index in range(self.queries)],
        )

    def _alone(self, look: Looks, generator: torch.Generator) -> Group:
        shown = below(len(look.views), generator)
        others = [view for index, view in enumerate(look.views) if index != shown] or [look.views[0]]
        return _group([look.views[shown]], [_any(others, generator) for _ in range(self.queries)])


def _group(shown: list[View], asked: list[View]) -> Group:
    return Group(
        pairs=tuple(shown),
        query=torch.stack([view.before for view in asked]),
        truth=torch.stack([view.after for view in asked]),
        grid=asked[0].grid,
    )


def _edits(looks: Sequence[Looks]) -> list[str]:
    return [look.edit for look in looks]


def _any(views: Sequence[View], generator: torch.Generator) -> View:
    return views[below(len(views), generator)]


def below(count: int, generator: torch.Generator) -> int:
    """A whole number from 0 up to `count`, which is left out."""
    return int(torch.randint(count, (), generator=generator))
