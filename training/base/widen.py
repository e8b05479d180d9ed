"""Making a trained transformer wider and deeper so that it goes on computing what it did (after Net2Net, Chen et al.,
arXiv 1511.05641): a larger model starts with what the smaller one knows, and learns with all of its weights.

New channels of the residual stream are zero, as nothing writes to them yet. Layer norms divide by a spread over more
channels then, so what reads the stream is scaled back, and the shifts in between the other way. They also subtract a
mean over more channels, which leaves the same value in all new ones; readers take back from there what is missing in
the old ones. New heads and hidden units read at random and write nothing, new blocks write nothing, and new channels
of an update have scales and gates of old ones, so that all of them learn at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Flux2Transformer2DModel
from torch import Tensor

from infra.errors import UsageError
from training.base.architecture import HEAD, MLP, new_transformer
from training.base.recipe import Phase

LEVELS = 201  # noise levels at which modulations are compared
TOLERANCE = 1e-4  # of singular values: as functions of the noise level they are smooth, and few

Parts = tuple[int, ...]  # of a dimension, in multiples of the width


@torch.no_grad()
def widen(model: Flux2Transformer2DModel, phase: Phase, seed: int = 0) -> Flux2Transformer2DModel:
    """A float32 transformer of the phase's size that computes what `model` does, to about a thousandth.

    It is not exact: the spread over more channels is taken about another mean.

    Raises:
        UsageError: the phase is narrower or shallower than the model.
    """
    check_growth(model.config, phase)
    wide = new_transformer(phase, seed)
    grow = _Grow(model, model.config.num_attention_heads * HEAD, phase.heads * HEAD)
    state, old = wide.state_dict(), model.state_dict()
    for name, weight in old.items():
        if weight.shape != state[name].shape:
            state[name] = grow(name, weight.float(), state[name])
        else:
            state[name] = weight.float()
    for name in state.keys() - old.keys():  # of new blocks
        if name.endswith("to_out.weight"):
            state[name].zero_()
    wide.load_state_dict(state)
    return wide


def check_growth(config: Mapping[str, Any], phase: Phase) -> None:
    """Whether a transformer of this configuration can be widened for the phase. Raises as `widen` does."""
    heads, single = config["num_attention_heads"], config["num_single_layers"]
    if phase.heads < heads or phase.single < single:
        raise UsageError(
            f"The base to go on from has {heads} heads and {single} single-stream blocks, the phase {phase.heads} and"
            f" {phase.single}: a base can grow, not shrink. Choose another --phase, or grow it --from-nothing."
        )


@dataclass(frozen=True)
class _Layer:
    """How the matrices of some layers grow: the parts of their rows and columns, and the modulation of what they read,
    by name and by which of its parts scales."""

    rule: Callable[[_Grow, _Layer, Tensor, Tensor], Tensor]
    rows: Parts = (1,)
    columns: Parts = (1,)
    modulation: tuple[str, int] = ("", 0)
    roles: str = ""


class _Grow:
    """Grows single matrices of a model from width `old` to `new`."""

    def __init__(self, model: Flux2Transformer2DModel, old: int, new: int) -> None:
        self.model, self.old, self.new = model, old, new
        levels = torch.linspace(0, 1000, LEVELS)
        embedded = model.time_guidance_embed(levels.to(model.dtype), None)
        self.levels = F.silu(embedded.float())  # (levels, old), what modulations read

    def __call__(self, name: str, weight: Tensor, fresh: Tensor) -> Tensor:
        """The matrix as part of the larger one, of which `fresh` is a random example."""
        layer = next(layer for pattern, layer in LAYERS.items() if re.search(pattern, name))
        return layer.rule(self, layer, weight, fresh)

    def write(self, layer: _Layer, weight: Tensor, fresh: Tensor) -> Tensor:
        """To the residual stream: nothing new is written."""
        grown = torch.zeros_like(fresh)
        grown[self._place(layer, weight, fresh)] = weight
        return grown

    def read(self, layer: _Layer, weight: Tensor, fresh: Tensor) -> Tensor:
        """From the residual stream. All new channels hold the same at first: their columns are the nearest to random
        ones that give, at every noise level, what old columns miss of it."""
        rows = self._place(layer, weight, fresh)[0][:, 0]
        share, scales = self.old / self.new, self._scales(*layer.modulation)
        grown = fresh.clone()
        grown[rows, : self.old] = weight * share**0.5
        missing = grown.new_zeros(len(grown), LEVELS)
        missing[rows] = (1 / share - 1) * share**0.5 * weight @ scales.T
        own = self._of_new(scales.T)
        added = grown[:, self.old :]
        added += ((missing - added @ own).double() @ torch.linalg.pinv(own.double(), rtol=TOLERANCE)).float()
        return grown

    def modulate(self, layer: _Layer, weight: Tensor, fresh: Tensor) -> Tensor:
        """What is added to a norm, by what it is multiplied, and the gate of what is written."""
        grown = self.write(layer, weight, fresh)
        for role, part in zip(layer.roles.split(), grown.unflatten(0, (-1, self.new)), strict=True):
            if role == "shift":
                part /= (self.old / self.new) ** 0.5
            else:
                part[self.old :] = self._of_new(part)
        return grown

    def embed(self, layer: _Layer, weight: Tensor, fresh: Tensor) -> Tensor:
        """Of the noise level: old channels read old ones only, new ones read at random."""
        place = self._place(layer, weight, fresh)
        grown = fresh.clone()
        grown[place[0]] = 0
        grown[place] = weight
        return grown

    def _of_new(self, old: Tensor) -> Tensor:
        """What new channels have of old ones, which come first in dimension 0."""
        return old[torch.arange(self.new - self.old) % self.old]

    def _scales(self, modulation: str, part: int) -> Tensor:
        """(levels, old) by what the channels of a norm are multiplied."""
        matrix = self.model.get_parameter(f"{modulation}.linear.weight").float().unflatten(0, (-1, self.old))[part]
        return 1 + self.levels @ matrix.T

    def _place(self, layer: _Layer, weight: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of the old entries in the new matrix."""
        rows = self._kept(weight.shape[0], fresh.shape[0], layer.rows)
        return rows[:, None], self._kept(weight.shape[1], fresh.shape[1], layer.columns)

    def _kept(self, old: int, new: int, parts: Parts) -> Tensor:
        """Every part of a dimension grows at its end; one that is not larger stays."""
        if old == new:
            return torch.arange(old)
        starts = [sum(parts[:index]) * self.new for index in range(len(parts))]
        return torch.cat([start + torch.arange(part * self.old) for start, part in zip(starts, parts, strict=True)])


_IMAGE, _TEXT, _SINGLE = "double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"
_THREE = "shift scale gate"
LAYERS = {
    r"single_transformer_blocks.*to_out\.": _Layer(_Grow.write, columns=(1, MLP)),
    r"linear_out\.": _Layer(_Grow.write, columns=(MLP,)),
    r"x_embedder|context_embedder|to_out\.0|to_add_out": _Layer(_Grow.write),
    r"to_qkv_mlp_proj": _Layer(_Grow.read, rows=(1, 1, 1, MLP, MLP), modulation=(_SINGLE, 1)),
    r"attn\.to_[qkv]\.": _Layer(_Grow.read, modulation=(_IMAGE, 1)),
    r"add_[qkv]_proj": _Layer(_Grow.read, modulation=(_TEXT, 1)),
    r"ff\.linear_in": _Layer(_Grow.read, rows=(MLP, MLP), modulation=(_IMAGE, 4)),
    r"ff_context\.linear_in": _Layer(_Grow.read, rows=(MLP, MLP), modulation=(_TEXT, 4)),
    r"proj_out": _Layer(_Grow.read, modulation=("norm_out", 0)),
    r"double_stream_modulation": _Layer(_Grow.modulate, rows=(1,) * 6, roles=f"{_THREE} {_THREE}"),
    r"single_stream_modulation": _Layer(_Grow.modulate, rows=(1,) * 3, roles=_THREE),
    r"norm_out": _Layer(_Grow.modulate, rows=(1,) * 2, roles="scale shift"),
    r"timestep_embedder": _Layer(_Grow.embed),
}
