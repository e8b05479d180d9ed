"""What a base takes of a GPU's memory, counted from its configuration before any of it is loaded.

Its models are made on the meta device, wear an adapter there, and run the very passes of an edit while a `Tally` counts
what lives. This is an upper bound for eager running: compiled blocks keep fewer intermediate results. What kernels use
inside (cuDNN's workspaces, say) cannot be seen, and neither can what the allocator loses between tensors.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import BaseNotFound
from pipelines.transfer import bases, loading, passes, prompts
from pipelines.transfer.adapters import layers_of
from pipelines.transfer.family import Family, suited
from pipelines.transfer.layout import Attention, Grid, compacted, working_size
from pipelines.transfer.passes import Prefix
from pipelines.transfer.sampler import euler_step
from pipelines.transfer.tally import Tally, tallied
from pipelines.transfer.tuning import BLOCKS, INT4_GROUP, MARK, light_layers
from pipelines.tuning import Tuning, Weights

RANK = 16  # of an adapter, unless told
BATCHES = 1, 2  # that are run; all others follow
AT_ONCE = 2  # blocks on the GPU under offloading: one that runs, and one that is on its way
PAD_ROWS, PAD_COLUMNS = 8, 1024  # of 4-bit weights as torchao packs them for tensor cores
ROW = {"float8": 4, "int8": 5}  # bytes beside each row: its scale, and in int8 its zero point
SCALES = 4  # bytes of scale and zero point of a group


@dataclass(frozen=True)
class Slope:
    """Bytes that grow with the batch: `fixed`, and `each` more for every image."""

    fixed: int
    each: int

    def at(self, batch: int) -> int:
        return self.fixed + self.each * batch


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a base takes under one tuning, in bytes.

    transformer, vae, adapter  weights that stay on the GPU
    scratch   the largest quantised layer in full, as it is multiplied
    pair      kept of each of some `pairs`: keys and values, or clean tokens where they run again with every query
    query     kept of each image while it is denoised
    passes    what the tensors of a pass take at most beside all that: `pair` and `query` (their clean blocks), `step`,
              `encode` and `decode` (the VAE's, one image after the other)
    """

    tuning: Tuning
    transformer: int
    vae: int
    adapter: int
    scratch: int
    pair: int
    pairs: int
    query: int
    passes: Mapping[str, Slope]

    @property
    def weights(self) -> int:
        """All that is there before anything runs, and room to multiply it."""
        return self.transformer + self.vae + self.adapter + self.scratch

    def kept(self, name: str, batch: int) -> int:
        """Of the pairs, and of the images where they are being denoised."""
        return self.pair * self.pairs + self.query * batch * (name in ("query", "step"))

    def worst(self, batch: int) -> str:
        """The pass in which a batch takes most."""
        return max(self.passes, key=lambda name: self.kept(name, batch) + self.passes[name].at(batch))

    def at(self, batch: int) -> int:
        """All that a batch takes in its worst pass."""
        name = self.worst(batch)
        return self.weights + self.kept(name, batch) + self.passes[name].at(batch)

    def largest(self, room: int, most: int) -> int:
        """The largest batch that this many bytes take, `most` at most; 0 for none."""
        return max((batch for batch in range(1, most + 1) if self.at(batch) <= room), default=0)


@dataclass(frozen=True, kw_only=True)
class Outlined:
    """A base on the meta device, and how it is going to be used."""

    family: Family
    attention: Attention
    size: tuple[int, int]  # pixels, width and height
    compact: int
    pairs: int
    adapter: int  # bytes

    @property
    def grid(self) -> Grid:
        return self.family.grid(*self.size)


def outlined(
    folder: Path,
    *,
    ranks: Sequence[int] = (RANK,),
    attention: Attention | None = None,
    compact: int = 1,
    pairs: int = 1,
) -> Outlined:
    """A base in bfloat16 without its weights, wearing LoRAs of these ranks on every linear layer of its blocks.

    Square images of the base's `max_area`, its own attention and its own text unless told.

    Raises:
        BaseNotFound: its configuration makes no models.
    """
    settings, family = bases.settings_of(folder), loading.outline(folder, torch.bfloat16)
    family.prompt = suited(prompts.of_base(folder), family.silence).to(family.device, torch.bfloat16)
    for index, rank in enumerate(ranks):
        _wear(family.transformer, rank, f"worn{index}")
    side = isqrt(settings.max_area)
    return Outlined(
        family=family,
        attention=attention or settings.attention,
        size=working_size(side, side, family.multiple, settings.max_area),
        compact=compact,
        pairs=pairs,
        adapter=nbytes(family.transformer) - sum(layer_bytes(family.transformer).values()),
    )


def _wear(transformer: Any, rank: int, name: str) -> None:
    from peft import LoraConfig

    layers = layers_of(transformer)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        transformer.add_adapter(LoraConfig(r=rank, target_modules=layers, init_lora_weights=False), name)
    nn.Module.to(transformer, torch.bfloat16).requires_grad_(False)  # as files of LoRAs are loaded


def footprints(outline: Outlined, tunings: Sequence[Tuning]) -> list[Footprint]:
    """What a base takes under each of some tunings; their other settings are passed over.

    Raises:
        BaseNotFound: its parts do not fit together.
    """
    try:
        pair, query, runs = _passes(outline)
        coding = {tiling: _coding(outline, tiling) for tiling in {tuning.tiling for tuning in tunings}}
    except (RuntimeError, ValueError, TypeError) as error:
        raise BaseNotFound(f"The parts of this base do not fit together: {error}") from error
    transformer = outline.family.transformer
    return [
        Footprint(
            tuning=tuning,
            transformer=_on_gpu(layer_bytes(transformer, tuning.weights), tuning.offload),
            vae=nbytes(outline.family.vae),
            adapter=outline.adapter,
            scratch=_scratch(transformer, tuning.weights),
            pair=pair,
            pairs=outline.pairs,
            query=query,
            passes=runs | coding[tuning.tiling],
        )
        for tuning in tunings
    ]


def _passes(outline: Outlined) -> tuple[int, int, dict[str, Slope]]:
    """What is kept of a pair and of an image, and what the passes of the transformer take beside that."""
    family, grid = outline.family, outline.grid
    rows, columns = compacted(grid, outline.compact)
    with tallied(family.device) as tally:
        before, after = (_tokens(family, 1, rows * columns) for _ in range(2))
        shown, grids = [(before, after)] * outline.pairs, [(grid, grid)] * outline.pairs
        prefix = passes.remember(family, shown, grids, outline.attention, outline.compact)
        pair = tally.peak - prefix.nbytes
        kept, query, step = zip(*(_edit(family, grid, prefix, batch, tally) for batch in BATCHES), strict=True)
    return (
        prefix.nbytes // outline.pairs,
        kept[0],
        {"pair": Slope(pair, 0), "query": _slope(*query), "step": _slope(*step)},
    )


def _edit(family: Family, grid: Grid, prefix: Prefix, batch: int, tally: Tally) -> tuple[int, int, int]:
    """What is kept of a batch, and what its query pass and a step take beside."""
    tokens, begun = grid[0] * grid[1], tally.now
    tally.restart()
    velocity = passes.velocity_field(family, _tokens(family, batch, tokens), prefix, prefix.layout(grid))
    kept, query = tally.now - begun, tally.peak - begun
    noise = _tokens(family, batch, tokens).float()
    tally.restart()
    euler_step(passes.guided(family, velocity), noise.clone(), 0.5, 0.0)  # not the first one: the noise is still there
    return kept, query - kept, tally.peak - begun - kept


def _coding(outline: Outlined, tiling: bool) -> dict[str, Slope]:
    """What the VAE takes, with or without tiles."""
    family, (width, height) = outline.family, outline.size
    (family.vae.enable_tiling if tiling else family.vae.disable_tiling)()
    takes: dict[str, list[int]] = {"encode": [], "decode": []}
    for batch in BATCHES:
        images = torch.empty(batch, 3, height, width)  # they come from the host
        with tallied(family.device) as tally:
            family.encode(images)
        takes["encode"].append(tally.peak)
        with tallied(family.device) as tally:
            tokens = outline.grid[0] * outline.grid[1]
            family.decode(_tokens(family, batch, tokens).float(), outline.grid)
        takes["decode"].append(tally.peak)
    return {name: _slope(*two) for name, two in takes.items()}


def _slope(small: int, large: int) -> Slope:
    """From what `BATCHES` take."""
    each = (large - small) // (BATCHES[1] - BATCHES[0])
    return Slope(small - each * BATCHES[0], each)


def _tokens(family: Family, batch: int, tokens: int) -> Tensor:
    return torch.empty(batch, tokens, family.channels, device=family.device, dtype=family.transformer.dtype)


def nbytes(module: nn.Module, recurse: bool = True) -> int:
    """Of its parameters and buffers, with those of the modules in it."""
    return sum(tensor.nbytes for tensor in (*module.parameters(recurse), *module.buffers(recurse)))


def layer_bytes(transformer: nn.Module, weights: Weights = "full") -> dict[str, int]:
    """What each module of a transformer takes by itself, without LoRA, its light layers as torchao keeps them."""
    light = light_layers(transformer, weights)
    return {
        name: _light_bytes(module, light[name]) if name in light else nbytes(module, recurse=False)
        for name, module in transformer.named_modules()
        if MARK not in name
    }


def _light_bytes(layer: Any, weights: Weights) -> int:
    bias = 0 if layer.bias is None else layer.bias.nbytes
    return packed_bytes(layer.out_features, layer.in_features, weights) + bias


def packed_bytes(rows: int, columns: int, weights: Weights) -> int:
    """A matrix of `rows` outputs in 8 bits with a scale for each, or in 4 with scale and zero for each group."""
    if weights != "int4":
        return rows * (columns + ROW[weights])
    rows, columns = _padded(rows, PAD_ROWS), _padded(columns, PAD_COLUMNS)
    return rows * columns // 2 + rows * columns // INT4_GROUP * SCALES


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _scratch(transformer: nn.Module, weights: Weights) -> int:
    return max((nbytes(transformer.get_submodule(name)) for name in light_layers(transformer, weights)), default=0)


def _on_gpu(layers: Mapping[str, int], offload: bool) -> int:
    """Of a transformer's modules all, or under offloading those outside of its blocks and the largest of these."""
    if not offload:
        return sum(layers.values())
    blocks: Counter[str] = Counter()
    for name, size in layers.items():
        blocks[".".join(name.split(".")[:2]) if name.startswith(BLOCKS) else ""] += size
    return blocks.pop("") + AT_ONCE * max(blocks.values())
