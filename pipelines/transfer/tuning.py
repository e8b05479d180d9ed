"""How a base is run: ways to take less memory or less time, each for something.

All of them are other people's: torchao's weights, torch's compiler, diffusers' step caches, offloading, tiling and
attention backends. What each one costs is in this folder's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from infra.errors import UsageError

Weights = Literal["full", "float8", "int8", "int4"]
StepCache = Literal["none", "first-block", "taylorseer", "magcache"]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a base is run with.

    weights            of the blocks' linear layers: as the base has them, or in 8 or 4 bits (torchao)
    compile            the blocks are compiled before their first use (torch.compile)
    step_cache         some denoising steps reuse what earlier ones computed (diffusers)
    tiling             the autoencoder works tile by tile
    offload            blocks wait in the host's memory and come to the GPU one after the other
    attention_backend  a name that diffusers knows, such as `flash` or `sage`; None for torch's own choice

    Raises UsageError for a value that is none.
    """

    weights: Weights = "full"
    compile: bool = False
    step_cache: StepCache = "none"
    tiling: bool = False
    offload: bool = False
    attention_backend: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("weights", get_args(Weights)), ("step_cache", get_args(StepCache))):
            if getattr(self, name) not in known:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} can be {', '.join(known)}, not {getattr(self, name)}.")

    @property
    def mark(self) -> str | None:
        """What of it changes results by more than rounding, in one word, None for nothing of it."""
        told = [
            *([self.weights] * (self.weights != "full")),
            *([self.step_cache] * (self.step_cache != "none")),
            *(["tiling"] * self.tiling),
        ]
        return "+".join(told) or None


PLAIN = Tuning()
