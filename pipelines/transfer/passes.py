"""The passes of one edit through a base: remember pairs, prepare queries, predict the result's velocity.

Training, batch and serving run these functions and no others. Letters: B images, S tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.transfer.attention import Segment, join
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import Attention, Grid, Layout, layout
from pipelines.transfer.sampler import Velocity

Grids = tuple[Grid, Grid]  # of before and after


@dataclass(frozen=True)
class Prefix:
    """What is remembered of some pairs, in the order given.

    `segment` holds their keys and values (prefix attention), or `tokens` their clean latents, (1, S, C) each, before
    and after in turn (full attention, which has to run them again with every query).
    """

    grids: tuple[Grids, ...]
    segment: Segment | None = None
    tokens: tuple[Tensor, ...] = ()


def remember(
    family: Flux2, pairs_1SC: Sequence[tuple[Tensor, Tensor]], grids: Sequence[Grids], attention: Attention
) -> Prefix:
    """Run the clean tokens of some pairs, each on its own, for all queries to come."""
    if attention == "full":
        return Prefix(tuple(grids), tokens=tuple(tokens for pair in pairs_1SC for tokens in pair))
    plan = layout(grids, grids[0][0], attention)
    segments = [
        family.run_clean(torch.cat([before, after], 1), panels)
        for (before, after), panels in zip(pairs_1SC, plan.pairs, strict=True)
    ]
    return Prefix(tuple(grids), segment=join(segments))


def velocity_field(family: Flux2, query_BSC: Tensor, prefix: Prefix, plan: Layout) -> Velocity:
    """The velocity of a batch of results, given the clean tokens of their queries.

    Clean blocks run here once under prefix attention, else at every call.
    """
    if prefix.segment is not None:
        read = [prefix.segment, family.run_clean(query_BSC, [plan.query], [prefix.segment])]
        return lambda x, t: family.run_result(x, plan.result, t, read)
    batch = query_BSC.shape[0]
    clean = torch.cat([*(tokens.expand(batch, -1, -1) for tokens in prefix.tokens), query_BSC], 1)
    panels = [plan.result, *(panel for pair in plan.pairs for panel in pair), plan.query]
    return lambda x, t: family.run_full(torch.cat([x.to(clean.dtype), clean], 1), panels, t)
