"""Training the miniature to transfer edits, with the very passes that inference runs.

Letters: B tuples, C channels, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.transfer.family import Family
from pipelines.transfer.layout import Grid, layout
from training.base.batches import Batch, Encoder, draw_batch
from training.base.heads import PairReader, Preview
from training.base.recipe import Phase
from training.loop import generator_for, quick_bfloat16
from training.loss import importance

ALL_NOISE = 0.7  # share of tuples at t = 1, where the edit is decided; the others have a logit-normal level
FIRST_GRIDS = 0.7  # share of steps with the first set of panel shapes
SEED_OF_SCENES = 500_009  # apart from that of the noise
READING_WEIGHT = 0.5  # of the auxiliary head's loss
CHANGED = 0.01  # squared change of a token, whose channels have a variance of about 1, from which it counts as changed


class TransferLoss:
    """Flow-matching loss on the result tokens, and those of the auxiliary heads; deterministic in the step.

    Args:
        family: the base in training.
        reader, preview: the auxiliary heads.
        encode: images to clean tokens.
        phase: what a batch is made of.
    """

    def __init__(
        self, family: Family, reader: PairReader, preview: Preview, encode: Encoder, phase: Phase, seed: int
    ) -> None:
        self.family = family
        self.reader = reader
        self.preview = preview
        self.encode = encode
        self.phase = phase
        self.seed = seed
        self.against_copying = Tally(list(phase.shares), family.device)
        self._drawn: tuple[int, Batch] | None = None

    def __call__(self, step: int) -> tuple[Tensor, int]:
        """Loss of a step, and how many tuples it covers."""
        batch, generator = self.draw(step), generator_for(self.seed, step, self.family.device)
        device = self.family.device
        with torch.autocast(device.type, torch.bfloat16, enabled=quick_bfloat16(device)):
            return self._loss_of(batch, generator), len(batch)

    def draw(self, step: int) -> Batch:
        """The batch of a step. Some steps are drawn together: a GPU waits for launches, however small they are."""
        together = self.phase.drawn_together
        chunk, place = divmod(step, together)
        if self._drawn is None or self._drawn[0] != chunk:
            self._drawn = (chunk, self._draw_chunk(chunk))
        return self._drawn[1].every(together, place)

    @torch.no_grad()
    def _draw_chunk(self, chunk: int) -> Batch:
        """Render and encode the scenes of some steps; families keep their shares in each of them."""
        seed, phase = self.seed + SEED_OF_SCENES, self.phase
        shares = {name: count * phase.drawn_together for name, count in phase.shares.items()}
        grids = _draw_grids(phase, generator_for(seed, chunk, torch.device("cpu")))
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
        error = (velocity.float() - (noise - batch.truth)).square().mean(2)
        copied = (batch.query - batch.truth).square().mean(2)
        self.against_copying.add(batch.edit, noise_levels == 1, error.detach(), copied)
        error = error + self.preview(query, batch.truth)
        reading = self.reader(pair, batch.edit, batch.parameters)
        return (error * importance(batch.query, batch.truth)).mean() + READING_WEIGHT * reading


class Tally:
    """Error of changed tokens at t = 1, where nothing is known of the result, as a share of that of copying the query.

    It comes with training, and is summed on the device until it is told.
    """

    def __init__(self, families: Sequence[str], device: torch.device) -> None:
        self.families = families
        self.sums = torch.zeros(len(families), 2, device=device)

    def add(self, edit_B: Tensor, all_noise_B: Tensor, error_BS: Tensor, copied_BS: Tensor) -> None:
        """One batch: which edits, whether at t = 1, squared errors of the result and of the query."""
        counted = (copied_BS > CHANGED) & all_noise_B[:, None]
        both = torch.stack([error_BS, copied_BS], 2) * counted[..., None]
        self.sums.index_add_(0, edit_B, both.sum(1).float())

    def tell(self) -> dict[str, float]:
        """The share of every family that was seen since it was last told."""
        told = zip(self.families, self.sums.tolist(), strict=True)
        self.sums.zero_()
        return {name: error / copied for name, (error, copied) in told if copied}


def _draw_grids(phase: Phase, generator: torch.Generator) -> tuple[Grid, Grid]:
    """Panel shapes of this step: pair and query may differ in shape, not in token count (it is compiled in)."""
    which, *draws = torch.rand(3, generator=generator).tolist()
    grids = phase.grids[0] if which < FIRST_GRIDS else phase.grids[-1]
    first, second = (grids[int(draw * len(grids))] for draw in draws)
    return first, second


def _draw_noise_levels(tuples: int, generator: torch.Generator) -> Tensor:
    """All noise for most tuples, for the others a logit-normal level (Esser et al., arXiv 2403.03206)."""
    normal = torch.randn(tuples, generator=generator, device=generator.device)
    alone = torch.rand(tuples, generator=generator, device=generator.device) < ALL_NOISE
    return torch.where(alone, 1.0, torch.sigmoid(normal + 0.5))
