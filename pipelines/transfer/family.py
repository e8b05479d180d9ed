"""What a family of bases offers to the passes: tokens for images, and the three ways in which blocks run.

Letters: B images, C latent channels of a token, S tokens, T text tokens, E text channels, P pooled text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pipelines.transfer.attention import Segment
from pipelines.transfer.layout import Grid, Panel


@dataclass(frozen=True)
class Prompt:
    """Text, precomputed: one embedding per token, and one for the whole where the family takes it.

    With a `negative` text a result is guided away from that, `guidance` times as far as the model goes by itself
    (classifier-free guidance, Ho and Salimans, arXiv 2207.12598).
    """

    tokens_1TE: Tensor
    pooled_1P: Tensor | None = None
    negative: Prompt | None = None
    guidance: float = 1.0

    @property
    def nbytes(self) -> int:
        own = self.tokens_1TE.nbytes + (0 if self.pooled_1P is None else self.pooled_1P.nbytes)
        return own + (self.negative.nbytes if self.negative else 0)

    def to(self, device: torch.device, dtype: torch.dtype) -> Prompt:
        return replace(
            self,
            tokens_1TE=self.tokens_1TE.to(device, dtype),
            pooled_1P=None if self.pooled_1P is None else self.pooled_1P.to(device, dtype),
            negative=self.negative and self.negative.to(device, dtype),
        )


def suited(given: Tensor | Prompt | None, silence: Prompt) -> Prompt:
    """The given text as a family takes it whose `silence` is the prompt without any text.

    A pooled embedding that is missing is taken from `silence`; one that the family has no use for is left out.

    Raises:
        ValueError: an embedding is wider or narrower than the family's.
    """
    if given is None:
        return silence
    prompt = given if isinstance(given, Prompt) else Prompt(given)
    _check_width("prompt embeddings", prompt.tokens_1TE, silence.tokens_1TE)
    pooled = silence.pooled_1P
    if pooled is not None and prompt.pooled_1P is not None:
        _check_width("pooled prompt embeddings", prompt.pooled_1P, pooled)
        pooled = prompt.pooled_1P
    return replace(prompt, pooled_1P=pooled, negative=prompt.negative and suited(prompt.negative, silence))


def _check_width(name: str, given: Tensor, silent: Tensor) -> None:
    if given.shape[-1] != silent.shape[-1]:
        raise ValueError(f"these {name} are {given.shape[-1]} wide, but the base takes {silent.shape[-1]}")


class Family(Protocol):
    """A loaded base.

    `prompt` is the text in use and `silence` what it is without any. `per_image` names the modules of the transformer
    whose last input has a row for every image and not one for every token (see `mixture.Mixture`).

    `device` and `dtype` are those of the transformer as it came: diffusers walks all modules to tell them, at every
    call, and with many LoRAs in a transformer that takes longer than its pass.
    """

    transformer: Any  # a model of diffusers, with our attention processors
    vae: Any
    scheduler: Any
    prompt: Prompt
    per_image: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype

    @property
    def silence(self) -> Prompt: ...

    @property
    def channels(self) -> int:
        """Latent channels of one token."""

    @property
    def multiple(self) -> int:
        """Pixels per token side."""

    def grid(self, width: int, height: int) -> Grid:
        """Rows and columns of tokens for an image whose sides are multiples of `multiple`."""

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """Images in [-1, 1] to clean tokens BSC."""

    def decode(self, tokens_BSC: Tensor, grid: Grid) -> Tensor:
        """Tokens to images B3HW in [-1, 1]."""

    def ids(self, panels: Sequence[Panel]) -> Tensor:
        """Position ids of the tokens of panels that run together, one row for each."""

    def run_clean(
        self,
        tokens_BSC: Tensor,
        panels: Sequence[Panel],
        read: Sequence[Segment] = (),
        each: Sequence[Sequence[Segment]] = (),
    ) -> Segment:
        """Run a clean block, modulated at t = 0 and without text tokens; returns its keys and values.

        It reads the same segments for every image, or those of `each`.
        """

    def run_result(
        self,
        tokens_BSC: Tensor,
        panel: Panel,
        t_B: Tensor,
        read: Sequence[Segment] = (),
        each: Sequence[Sequence[Segment]] = (),
    ) -> Tensor:
        """Velocity of the result at noise level `t_B` in [0, 1], (B,) or one for all, reading the clean blocks."""

    def run_full(self, tokens_BSC: Tensor, panels: Sequence[Panel], t_B: Tensor) -> Tensor:
        """Velocity of the first panel when all tokens see all, all modulated at `t_B`: the stock pass."""

    def noise(self, seeds: Sequence[int], result: Panel) -> Tensor:
        """Starting noise BSC of the result, the same for a seed whatever the batch and the device."""

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """Noise levels from 1 down to 0, `steps + 1` of them, as the base's own scheduler spaces them.

        `tokens` are the result's. What of a base's sequence counts for its schedule is decided here, by the family.
        """
