"""Training the miniature to transfer edits, with the very passes that inference runs.

Letters: N pairs, Q queries an edit, B tuples, C channels, S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import Grid, layout
from training.base.architecture import GRIDS
from training.base.loop import Loss, generator_for
from training.scenes import FAMILIES, draw_tuples

SHOWN = 2  # pairs per edit, and queries per edit: every pair meets every query
NOISE_LEVELS = 2  # per tuple: all noise, and one drawn
EDITS_PER_BATCH = {"background": 6, "tone": 5, "recolour": 6, "flip": 3, "scale": 2, "translate": 2}


def transfer_loss(family: Flux2, seed: int, scale: int = 1) -> Loss:
    """Flow-matching loss on the result tokens only; `scale` multiplies the number of edits in a batch."""

    def loss(step: int) -> tuple[Tensor, int]:
        generator = generator_for(seed, step, family.device)
        pair_grid, query_grid = _draw_grids(generator)
        panels = _encode_batch(family, pair_grid, query_grid, generator, scale)
        with torch.autocast(family.device.type, torch.bfloat16):
            return _tuple_loss(family, panels, pair_grid, query_grid, generator), panels[2].shape[0] * SHOWN

    return loss


def _draw_grids(generator: torch.Generator) -> tuple[Grid, Grid]:
    """Panel shapes of this step: pair and query may differ in shape, not in token count (it is compiled in)."""
    draws = torch.rand(3, generator=generator, device=generator.device).tolist()
    grids = GRIDS[16] if draws[0] < 0.7 else GRIDS[15]
    return grids[int(draws[1] * len(grids))], grids[int(draws[2] * len(grids))]


@torch.no_grad()
def _encode_batch(
    family: Flux2, pair_grid: Grid, query_grid: Grid, generator: torch.Generator, scale: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean tokens of before, after, query and truth, each (edits * SHOWN, S, C)."""
    drawn = [
        images
        for name, edits in EDITS_PER_BATCH.items()
        for images in _draw_edit(name, edits * scale, pair_grid, query_grid, family.multiple, generator)
    ]
    before, after, query, truth = (_encode(family, torch.cat(drawn[start::4])) for start in range(4))
    return before, after, query, truth


def _draw_edit(
    name: str, edits: int, pair_grid: Grid, query_grid: Grid, multiple: int, generator: torch.Generator
) -> Iterator[Tensor]:
    pairs = draw_tuples(FAMILIES[name], edits, SHOWN, _pixels(pair_grid, multiple), generator)
    queries = draw_tuples(
        FAMILIES[name], edits, SHOWN, _pixels(query_grid, multiple), generator, parameters=pairs.parameters
    )
    for images in (pairs.before, pairs.after, queries.before, queries.after):
        yield images.flatten(0, 1)


def _pixels(grid: Grid, multiple: int) -> tuple[int, int]:
    return grid[0] * multiple, grid[1] * multiple


def _encode(family: Flux2, images: Tensor) -> Tensor:
    with torch.autocast(family.device.type, torch.bfloat16):
        return family.encode(images * 2 - 1).float()


def _tuple_loss(
    family: Flux2,
    panels: tuple[Tensor, Tensor, Tensor, Tensor],
    pair_grid: Grid,
    query_grid: Grid,
    generator: torch.Generator,
) -> Tensor:
    before, after, query, truth = panels
    plan = layout([(pair_grid, pair_grid)], query_grid, "prefix")
    pair = family.run_clean(torch.cat([before, after], 1), plan.pairs[0]).repeat(SHOWN)
    query, truth = _meet_every_pair(query), _meet_every_pair(truth)
    remembered = family.run_clean(query, [plan.query], [pair])
    noise_levels = _draw_noise_levels(truth.shape[0], generator)
    clean = truth.repeat_interleave(NOISE_LEVELS, 0)
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    t = noise_levels[:, None, None]
    read = [pair.repeat(NOISE_LEVELS), remembered.repeat(NOISE_LEVELS)]
    velocity = family.run_result((1 - t) * clean + t * noise, plan.result, noise_levels, read)
    error = (velocity.float() - (noise - clean)).square().mean((1, 2))
    return (error * _importance(query, truth).repeat_interleave(NOISE_LEVELS)).mean()


def _meet_every_pair(tokens: Tensor) -> Tensor:
    """(edits * SHOWN, S, C) queries to (edits * SHOWN * SHOWN, S, C): for pair 1, 2 of an edit, all its queries."""
    by_edit = tokens.unflatten(0, (-1, SHOWN))
    return by_edit.repeat_interleave(SHOWN, 0).flatten(0, 1)


def _draw_noise_levels(tuples: int, generator: torch.Generator) -> Tensor:
    """All noise, where the edit is decided, beside a logit-normal level (Esser et al., arXiv 2403.03206)."""
    normal = torch.randn(tuples, generator=generator, device=generator.device)
    drawn = torch.sigmoid(normal + 0.5)
    return torch.stack([torch.ones_like(drawn), drawn], -1).flatten()


def _importance(query: Tensor, truth: Tensor) -> Tensor:
    """Small edits count as much as large ones: divide by the error of copying the query; mean 1."""
    weight = 1 / (0.25 + F.mse_loss(query, truth, reduction="none").mean((1, 2)))
    return weight / weight.mean()
