"""Edits that a base can do already, for it to keep while an adapter learns another one."""

from __future__ import annotations

import hashlib
import math

import torch

from pipelines.pairs.check import Pair, check_pairs, usable
from pipelines.transfer.bases import BaseSettings
from training.evaluation.pictures import to_image
from training.scenes import EVERY_FAMILY, draw_tuples

SEED = 0
EDITS, OBJECTS = 8, 3  # of each family, no more than a short training meets; the objects of an edit


def rehearsal_pairs(families: tuple[str, ...], side: int, seed: int) -> list[Pair]:
    """Pairs of procedural scenes for a base that was trained on them, `side` x `side` pixels."""
    pairs = []
    for name in families:
        generator = torch.Generator().manual_seed(int(hashlib.sha256(f"{name}/{seed}".encode()).hexdigest()[:12], 16))
        drawn = draw_tuples(EVERY_FAMILY[name], EDITS, OBJECTS, (side, side), generator)
        for edit in range(EDITS):
            for place in range(OBJECTS):
                before, after = (to_image(images[edit, place]) for images in (drawn.before, drawn.after))
                told = f"{name} {edit}", f"{name} {edit} {place}"
                pairs.append(Pair(told[1], told[0], before, after, ("", ""), (f"{seed} {told[1]}", "")))
    return pairs


def kept_pairs(source: str | None, base: BaseSettings, max_pixels: int) -> list[Pair]:
    """The pairs at which an adapter shall do what the base does: the user's, else scenes that the base names.

    Raises:
        PairError: none of the user's can be used.
        StoreError: their place does not answer.
    """
    if source is not None:
        return usable(check_pairs(source, max_pixels), source)
    return rehearsal_pairs(base.rehearsal, math.isqrt(base.max_area), SEED) if base.rehearsal else []
