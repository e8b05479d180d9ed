"""An auxiliary head for training only: name the edit and its parameters from what a pair leaves behind.

The queries read nothing of a pair but its keys and values; what these do not say cannot be transferred. The head reads
the values, so its gradient teaches the pair's pass directly what to say. It is thrown away after training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.transfer.attention import Segment
from training.base.batches import DIMS

WIDTH = 384
NAME_WEIGHT = 0.1  # of the cross entropy, against the squared error of the parameters


class PairReader(nn.Module):
    """Reads the mean value of all pair tokens in some layers.

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
        self.out = nn.Linear(WIDTH, families + families * (DIMS + 1))

    def forward(self, pair: Segment, family: Tensor, parameters: Tensor) -> Tensor:
        """Loss of naming `family` (B,) and its `parameters` (B, D + 1), those that are not NaN."""
        values = torch.cat([pair.layers[layer][1].flatten(2).mean(1) for layer in self.layers], -1)
        said = self.out(F.silu(self.hidden(self.norm(values.float())))).float()
        names, guesses = said.split([self.families, said.shape[1] - self.families], 1)
        guess = guesses.unflatten(1, (self.families, -1))[torch.arange(len(family), device=family.device), family]
        known = ~parameters.isnan()
        error = ((guess - parameters.nan_to_num()) ** 2 * known).sum(1) / known.sum(1).clamp(min=1)
        return error.mean() + NAME_WEIGHT * F.cross_entropy(names, family)
