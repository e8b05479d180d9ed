"""The loss of an adapter: flow matching on the result's tokens, by the very passes that inference runs.

Letters: B queries, S tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import Attention, layout
from pipelines.transfer.passes import remember, velocity_field
from training.fit.draw import Group
from training.loss import importance, logit_normal

VISITED = 0.5  # share of tuples at a noise level where sampling stops by; the others have a logit-normal one


def group_loss(family: Flux2, attention: Attention, steps: int, group: Group, generator: torch.Generator) -> Tensor:
    """Mean loss of a group; its pairs run once for all of its queries, with gradients.

    Args:
        steps: denoising steps that the base is used with.
        generator: a CPU generator, for noise and noise levels.
    """
    device = family.device
    query, truth = group.query.to(device), group.truth.to(device)
    grids = [(view.grid, view.grid) for view in group.pairs]
    pairs = [(view.before[None].to(device), view.after[None].to(device)) for view in group.pairs]
    plan = layout(grids, group.grid, attention)
    t_B = _noise_levels(len(query), family.sigmas(steps, plan.result.tokens)[:-1], generator).to(device)
    noise = torch.randn(truth.shape, generator=generator).to(device)
    noisy = torch.lerp(truth, noise, t_B[:, None, None])
    velocity = velocity_field(family, query, remember(family, pairs, grids, attention), plan)(noisy, t_B)
    error_BS = (velocity.float() - (noise - truth)).square().mean(2)
    return (error_BS * importance(query, truth)).mean()


def _noise_levels(count: int, visited: list[float], generator: torch.Generator) -> Tensor:
    stops = torch.tensor(visited)[torch.randint(len(visited), (count,), generator=generator)]
    stopped = torch.rand(count, generator=generator) < VISITED
    return torch.where(stopped, stops, logit_normal(count, generator))
