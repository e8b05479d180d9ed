"""The passes of one edit through a base: remember pairs, prepare queries, predict the result's velocity.

Training, batch and serving run these functions and no others. Letters: B images, S tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.transfer.attention import Segment
from pipelines.transfer.family import Family
from pipelines.transfer.layout import Attention, Grid, Layout, Panel, layout
from pipelines.transfer.sampler import Velocity
from pipelines.transfer.tuning import cached_as

Grids = tuple[Grid, Grid]  # of before and after


@dataclass(frozen=True)
class Prefix:
    """What is remembered of some pairs, in the order given.

    `segments` hold the keys and values of each (prefix attention), or `tokens` their clean latents, (1, S, C) each,
    before and after in turn (full and joint attention, which have to run them again with every query). `grids` are
    those at full scale, whatever `compact` is.
    """

    grids: tuple[Grids, ...]
    attention: Attention
    segments: tuple[Segment, ...] = ()
    tokens: tuple[Tensor, ...] = ()
    compact: int = 1

    def layout(self, query: Grid) -> Layout:
        """Where everything sits when a query of this grid is edited."""
        return layout(self.grids, query, self.attention, self.compact)

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in self.segments) + sum(tokens.nbytes for tokens in self.tokens)


def remember(
    family: Family,
    pairs_1SC: Sequence[tuple[Tensor, Tensor]],
    grids: Sequence[Grids],
    attention: Attention,
    compact: int = 1,
) -> Prefix:
    """Run the clean tokens of some pairs, each on its own, for all queries to come; `grids` are those at full scale."""
    if attention != "prefix":
        tokens = tuple(tokens for pair in pairs_1SC for tokens in pair)
        return Prefix(tuple(grids), attention, tokens=tokens, compact=compact)
    plan = layout(grids, grids[0][0], attention, compact)
    segments = tuple(
        family.run_clean(torch.cat([before, after], 1), panels)
        for (before, after), panels in zip(pairs_1SC, plan.pairs, strict=True)
    )
    return Prefix(tuple(grids), attention, segments, compact=compact)


@dataclass(frozen=True)
class Context:
    """What the result of one query reads at every step: `read` (prefix and joint attention), or `clean_1SC` (full
    attention), the tokens of pairs and query that are run again with it."""

    plan: Layout
    read: tuple[Segment, ...] = ()
    clean_1SC: Tensor | None = None

    @property
    def kind(self) -> Grid | Layout:
        """Results whose contexts are of one kind can share a pass."""
        return self.plan.result.grid if self.clean_1SC is None else self.plan


def contexts(family: Family, query_BSC: Tensor, prefixes: Sequence[Prefix], plans: Sequence[Layout]) -> list[Context]:
    """Run some queries of one grid together, each after a prefix of its own, all of one attention.

    Under joint attention their pairs must have the same grids, that is, their plans must be equal.
    """
    if not prefixes[0].segments:
        cleans = [
            torch.cat([*prefix.tokens, query], 1) for query, prefix in zip(query_BSC.split(1), prefixes, strict=True)
        ]
        if prefixes[0].attention == "full":
            return [Context(plan, clean_1SC=clean) for plan, clean in zip(plans, cleans, strict=True)]
        joint = family.run_clean(torch.cat(cleans), _references(plans[0]), each=[()] * len(cleans)).split()
        return [Context(plan, (read,)) for plan, read in zip(plans, joint, strict=True)]
    queries = family.run_clean(query_BSC, [plans[0].query], each=[prefix.segments for prefix in prefixes]).split()
    return [
        Context(plan, (*prefix.segments, query)) for plan, prefix, query in zip(plans, prefixes, queries, strict=True)
    ]


def velocities(family: Family, x_BSC: Tensor, t_B: Tensor, read: Sequence[Context]) -> Tensor:
    """The velocities of results whose contexts are of one kind, each at a noise level of its own."""
    plan = read[0].plan
    if read[0].clean_1SC is None:
        return family.run_result(x_BSC, plan.result, t_B, each=[context.read for context in read])
    clean = torch.cat([context.clean_1SC for context in read if context.clean_1SC is not None])
    return family.run_full(torch.cat([x_BSC.to(clean.dtype), clean], 1), _panels(plan), t_B)


def velocity_field(family: Family, query_BSC: Tensor, prefix: Prefix, plan: Layout) -> Velocity:
    """The velocity of a batch of results, given the clean tokens of their queries.

    Clean blocks run here once under prefix and joint attention, else at every call.
    """
    if prefix.segments:
        read = [*prefix.segments, family.run_clean(query_BSC, [plan.query], prefix.segments)]
        return lambda x, t: family.run_result(x, plan.result, t, read)
    batch = query_BSC.shape[0]
    clean = torch.cat([*(tokens.expand(batch, -1, -1) for tokens in prefix.tokens), query_BSC], 1)
    if prefix.attention == "joint":
        joint = family.run_clean(clean, _references(plan))
        return lambda x, t: family.run_result(x, plan.result, t, [joint])
    return lambda x, t: family.run_full(torch.cat([x.to(clean.dtype), clean], 1), _panels(plan), t)


def guided(family: Family, velocity: Velocity) -> Velocity:
    """The same velocity, led away from that under the negative text where the text in use has one, for twice the work.

    Clean blocks that ran before stay as they are: they see no text tokens, at most the pooled text (FLUX.1).
    """

    def led(x_BSC: Tensor, t_B: Tensor) -> Tensor:
        prompt = family.prompt
        with cached_as(family.transformer, "text"):
            predicted = velocity(x_BSC, t_B)
        if prompt.negative is None:
            return predicted
        family.prompt = prompt.negative
        try:
            with cached_as(family.transformer, "negative text"):
                other = velocity(x_BSC, t_B)
        finally:
            family.prompt = prompt
        return other + prompt.guidance * (predicted - other)

    return led


def _panels(plan: Layout) -> list[Panel]:
    """In the order in which full attention takes them."""
    return [plan.result, *_references(plan)]


def _references(plan: Layout) -> list[Panel]:
    """All clean panels, the query last."""
    return [*(panel for pair in plan.pairs for panel in pair), plan.query]
