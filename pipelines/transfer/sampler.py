"""Flow-matching Euler sampling (Lipman et al., arXiv 2210.02747): x_t = (1 - t) data + t noise, v = noise - data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (tokens BSC, t of shape (1,)) -> velocity BSC


def draw_noise(seeds: Sequence[int], tokens: int, channels: int) -> Tensor:
    """Starting noise BSC. Each image has its own generator, on the CPU: neither the batch nor the device matters."""
    return torch.stack([torch.randn(tokens, channels, generator=generator_of(seed)) for seed in seeds])


def generator_of(seed: int) -> torch.Generator:
    """The generator of an image's noise."""
    return torch.Generator().manual_seed(seed)


def denoise(velocity: Velocity, noise_BSC: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Integrate from noise to data along `sigmas`, which fall from 1 to 0."""
    x = noise_BSC
    for now, then in pairwise(sigmas):
        x = euler_step(velocity, x, now, then)
    return x


def euler_step(velocity: Velocity, x_BSC: Tensor, now: float, then: float) -> Tensor:
    """One step from noise level `now` to `then`, kept in float32 whatever the model's dtype.

    The batch shares one `t`: as many rows as images would round differently with the size of the batch.
    """
    return euler_move(x_BSC, velocity(x_BSC, torch.full((1,), now, device=x_BSC.device)), now, then)


def euler_move(x_BSC: Tensor, velocity_BSC: Tensor, now: float, then: float) -> Tensor:
    """Where one step at this velocity leads; `then` = 0 is what the result looks like from here."""
    return x_BSC + (then - now) * velocity_BSC.float()
