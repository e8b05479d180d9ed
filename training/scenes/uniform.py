"""Uniform random tensors from one generator."""

from __future__ import annotations

import torch
from torch import Tensor


class Uniform:
    """Draws from [low, high), on the generator's device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        noise = torch.rand(*shape, generator=self.generator, device=self.device)
        return low + (high - low) * noise
