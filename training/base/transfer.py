"""Training the miniature to transfer edits, with the very passes that inference runs.

Letters: B tuples, C channels, S tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.transfer.family import Family
from pipelines.transfer.layout import Grid, layout
from training.base.architecture import Recipe
from training.base.batches import Batch, Encoder, draw_batch
from training.base.heads import PairReader, Preview
from training.loop import generator_for
from training.loss import importance

ALL_NOISE = 0.7  # share of tuples at t = 1, where the edit is decided; the others have a logit-normal level
FIRST_GRIDS = 0.7  # share of steps with the first set of panel shapes
SEED_OF_SCENES = 500_009  # apart from that of the noise
READING_WEIGHT = 0.5  # of the auxiliary head's loss


class TransferLoss:
    """Flow-matching loss on the result tokens, and those of the auxiliary heads; deterministic in the step.

    Args:
        family: the base in training.
        reader, preview: the auxiliary heads.
        encode: images to clean tokens.
        recipe: what a batch is made of.
    """

    def __init__(
        self, family: Family, reader: PairReader, preview: Preview, encode: Encoder, recipe: Recipe, seed: int
    ) -> None:
        self.family = family
        self.reader = reader
        self.preview = preview
        self.encode = encode
        self.recipe = recipe
        self.seed = seed
        self._drawn: tuple[int, Batch] | None = None

    def __call__(self, step: int) -> tuple[Tensor, int]:
        """Loss of a step, and how many tuples it covers."""
        batch, generator = self.draw(step), generator_for(self.seed, step, self.family.device)
        with torch.autocast(self.family.device.type, torch.bfloat16):
            return self._loss_of(batch, generator), len(batch)

    def draw(self, step: int) -> Batch:
        """The batch of a step. Some steps are drawn together: a GPU waits for launches, however small they are."""
        together = self.recipe.drawn_together
        chunk, place = divmod(step, together)
        if self._drawn is None or self._drawn[0] != chunk:
            self._drawn = (chunk, self._draw_chunk(chunk))
        return self._drawn[1].every(together, place)

    @torch.no_grad()
    def _draw_chunk(self, chunk: int) -> Batch:
        """Render and encode the scenes of some steps; families keep their shares in each of them."""
        seed, recipe = self.seed + SEED_OF_SCENES, self.recipe
        shares = {name: count * recipe.drawn_together for name, count in recipe.shares.items()}
        grids = _draw_grids(recipe, generator_for(seed, chunk, torch.device("cpu")))
        generator = generator_for(seed + 1, chunk, self.family.device)
        return draw_batch(shares, self.encode, grids, self.family.multiple, generator)

    def _loss_of(self, batch: Batch, generator: torch.Generator) -> Tensor:
        family, plan = self.family, layout([(batch.pair_grid, batch.pair_grid)], batch.query_grid, "prefix")
        pair = family.run_clean(torch.cat([batch.before, batch.after], 1), plan.pairs[0])
        query = family.run_clean(batch.query, [plan.query], [pair])
        noise = torch.randn(batch.truth.shape, generator=generator, device=batch.truth.device)
        noise_levels = _draw_noise_levels(len(batch), generator)
        t = noise_levels[:, None, None]
        velocity = family.run_result((1 - t) * batch.truth + t * noise, plan.result, noise_levels, [pair, query])
        error = (velocity.float() - (noise - batch.truth)).square().mean(2) + self.preview(query, batch.truth)
        reading = self.reader(pair, batch.edit, batch.parameters)
        return (error * importance(batch.query, batch.truth)).mean() + READING_WEIGHT * reading


def _draw_grids(recipe: Recipe, generator: torch.Generator) -> tuple[Grid, Grid]:
    """Panel shapes of this step: pair and query may differ in shape, not in token count (it is compiled in)."""
    which, *draws = torch.rand(3, generator=generator).tolist()
    grids = recipe.grids[0] if which < FIRST_GRIDS else recipe.grids[-1]
    first, second = (grids[int(draw * len(grids))] for draw in draws)
    return first, second


def _draw_noise_levels(tuples: int, generator: torch.Generator) -> Tensor:
    """All noise for most tuples, for the others a logit-normal level (Esser et al., arXiv 2403.03206)."""
    normal = torch.randn(tuples, generator=generator, device=generator.device)
    alone = torch.rand(tuples, generator=generator, device=generator.device) < ALL_NOISE
    return torch.where(alone, 1.0, torch.sigmoid(normal + 0.5))
