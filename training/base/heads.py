"""Auxiliary heads, for training only: what the clean blocks leave behind has to say the right thing.

A query reads nothing of a pair, and a result nothing of a query, but keys and values. The heads read the values, so
their gradients teach each pass directly, without the detour through the noise of the result. They are thrown away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.transfer.attention import Segment
from training.base.batches import DIMS

WIDTH = 384
PREVIEWED = 2  # layers
NAME_WEIGHT = 0.1  # of the cross entropy, against the squared error of the parameters


class PairReader(nn.Module):
    """Names the edit and its parameters from the mean value of all pair tokens in some layers.

    Args:
        channels: heads times channels of a head.
        families: how many kinds of edit there are.
        layers: which layers' values to read; all should be early enough for later ones to use.
    """

    def __init__(self, channels: int, families: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.families = families
        self.norm = nn.LayerNorm(channels * len(layers))
        self.hidden = nn.Linear(channels * len(layers), WIDTH)
        self.out = nn.Linear(WIDTH, families + families * DIMS)

    def forward(self, pair: Segment, edit: Tensor, parameters: Tensor) -> Tensor:
        """Loss of naming the family of the `edit` (B,) and its `parameters` (B, D), those that are not NaN."""
        values = torch.cat([pair.layers[layer][1].flatten(2).mean(1) for layer in self.layers], -1)
        said = self.out(F.silu(self.hidden(self.norm(values.float())))).float()
        names, guesses = said.split([self.families, said.shape[1] - self.families], 1)
        guess = guesses.unflatten(1, (self.families, -1))[torch.arange(len(edit), device=edit.device), edit]
        known = ~parameters.isnan()
        error = ((guess - parameters.nan_to_num()) ** 2 * known).sum(1) / known.sum(1).clamp(min=1)
        return error.mean() + NAME_WEIGHT * F.cross_entropy(names, edit)


class Preview(nn.Module):
    """Reads the finished result off the query's values in the last layers, token by token with one matrix.

    The query has its content at hand and sees the pair: the edit can be done there, where there is no noise, and the
    result block only has to fetch it.
    """

    def __init__(self, channels: int, token: int) -> None:
        super().__init__()
        self.out = nn.ModuleList(nn.Linear(channels, token) for _ in range(PREVIEWED))

    def forward(self, query: Segment, truth: Tensor) -> Tensor:
        """(B, S) squared error of the truth BSC, a mean over the layers."""
        values = [value.flatten(2).float() for _, value in query.layers[-PREVIEWED:]]
        errors = [(head(value) - truth).float().square().mean(2) for head, value in zip(self.out, values, strict=True)]
        return torch.stack(errors).mean(0)
