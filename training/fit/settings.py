"""How an adapter is trained: the settings, and sensible ones for a number of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from infra.errors import UsageError
from pipelines.transfer.layout import Attention
from pipelines.transfer.loading import Quantised

Precision = Literal["float32", "bfloat16"]
FEW = 5  # pairs; from here on there is enough to fill a higher rank
MANY = 17  # pairs; from here on more of them take more steps
LOOKS = 8  # at the held-out pairs in a training; they are no nearer to each other and no further apart than:
NEAR, FAR = 10, 50  # steps


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides an adapter, beside the base and the pairs.

    rank, rate     of the LoRA (alpha is the rank), and its learning rate
    steps          at most; training stops earlier when the held-out pairs get worse
    queries        edited behind one shared prefix, in every worker at every step
    kept_queries   the same for edits that the base can do already and shall keep, where there are any: few, for each
                   costs three times what a new one does, and another edit comes with every step
    cooldown       share of the steps over which the rate falls to zero, at the end
    shown          pairs in that prefix, at most
    views          of each pair, encoded once: the whole picture, and crops
    mirrored       some views are mirrored; wrong for edits that have a left and a right
    judge_every    steps between two looks at the held-out pairs
    patience       looks without a better score before training stops
    precision      bfloat16 computes with it, the adapter itself stays float32
    quantised      the frozen base's weights are kept in fewer bits; saves memory, costs accuracy
    checkpointing  layers run again in the backward pass instead of keeping what they computed; saves memory
    compact        by how much the sides of pairs have fewer tokens than those of queries
    workers        processes that train together, each on groups of its own
    """

    rank: int
    rate: float
    steps: int
    attention: Attention
    queries: int = 8
    kept_queries: int = 2
    cooldown: float = 0.5
    shown: int = 2
    views: int = 8
    mirrored: bool = False
    judge_every: int = 50
    patience: int = 6
    ema: float = 0.98
    precision: Precision = "float32"
    quantised: Quantised = "none"
    checkpointing: bool = False
    workers: int = 1
    seed: int = 0
    compact: int = 1

    def __post_init__(self) -> None:
        counts = ("rank", "steps", "queries", "shown", "views", "workers", "judge_every", "compact")
        for name in counts:
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}.")
        for name, known in (("precision", get_args(Precision)), ("quantised", get_args(Quantised))):
            if getattr(self, name) not in known:
                raise UsageError(f"--{name} can be {' or '.join(known)}, not {getattr(self, name)}.")
        if not 0 < self.rate < 1:
            raise UsageError(f"--rate must lie between 0 and 1, not {self.rate:g}.")


def usual_rank(pairs: int) -> int:
    """16 as in the paper, twice that once there are a few pairs (method.md: 16 to 32 for 5 to 20)."""
    return 32 if pairs >= FEW else 16


def usual_steps(pairs: int, least: int) -> int:
    """`least` is what the base asks for; in proportion from 17 pairs on. Where a base asks for 500, that is the rule of
    thumb of LoRA trainers, 30 a pair."""
    return max(least, round(least * pairs / MANY))


def usual_looks(steps: int) -> int:
    """Steps from one look at the held-out pairs to the next."""
    return max(NEAR, min(FAR, steps // LOOKS))
