"""The loss of an adapter: flow matching on the result's tokens, by the very passes that inference runs.

Letters: B queries, S tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.transfer.family import Family
from pipelines.transfer.layout import Attention
from pipelines.transfer.passes import remember, velocity_field
from training.fit.draw import Group
from training.loss import importance


def group_loss(
    family: Family, attention: Attention, steps: int, group: Group, generator: torch.Generator, *, keep: bool = False
) -> Tensor:
    """Mean loss of a group; its pairs run once for all of its queries, with gradients.

    Args:
        steps: denoising steps that the base is used with.
        generator: a CPU generator, for noise and noise levels.
        keep: the target is what the base does without the adapter, not the truth.
    """
    device = family.device
    query, truth = group.query.to(device), group.truth.to(device)
    t_B = _noise_levels(len(query), family.sigmas(steps, query.shape[1])[:-1], generator).to(device)
    noise = torch.randn(truth.shape, generator=generator).to(device)
    noisy = torch.lerp(truth, noise, t_B[:, None, None])
    target = _of_base(family, attention, group, query, noisy, t_B) if keep else noise - truth
    error_BS = (_velocity(family, attention, group, query, noisy, t_B) - target).square().mean(2)
    return (error_BS * importance(query, truth)).mean()


def _velocity(family: Family, attention: Attention, group: Group, query: Tensor, noisy: Tensor, t_B: Tensor) -> Tensor:
    grids = [(view.grid, view.grid) for view in group.pairs]
    shown = [view.shown or (view.before, view.after) for view in group.pairs]
    pairs = [(before[None].to(query), after[None].to(query)) for before, after in shown]
    prefix = remember(family, pairs, grids, attention, group.pairs[0].compact)
    return velocity_field(family, query, prefix, prefix.layout(group.grid))(noisy, t_B).float()


@torch.no_grad()
def _of_base(family: Family, attention: Attention, group: Group, query: Tensor, noisy: Tensor, t_B: Tensor) -> Tensor:
    family.transformer.disable_lora()
    try:
        return _velocity(family, attention, group, query, noisy, t_B)
    finally:
        family.transformer.enable_lora()


def _noise_levels(count: int, visited: list[float], generator: torch.Generator) -> Tensor:
    """(count,) levels at which sampling stops by, and no others: where these are few, they are all that counts."""
    return torch.tensor(visited)[torch.randint(len(visited), (count,), generator=generator)]
