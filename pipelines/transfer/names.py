"""What tools call the layers of a LoRA: diffusers, whose names are ours, and Black Forest Labs (BFL), with dots or, as
kohya spells them, with underscores.

BFL stack some layers of diffusers in one, `qkv` for example. ai-toolkit writes the names of diffusers for FLUX.1 and
those of BFL for FLUX.2; ComfyUI reads both.

Letters: R rank, I width of a layer's input, O of its output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipelines.transfer.lorafile import Transformer

Weights = dict[str, Tensor]  # key in a LoRA's file: its matrix
Table = dict[str, tuple[str, ...]]  # name of a layer: our names of the layers that are stacked in it
T = TypeVar("T")


def _table(theirs: str, ours: str, names: dict[str, str]) -> Table:
    """A table with the block's name in front; `{}` stands for its number."""
    return {theirs + name: tuple(ours + layer for layer in layers.split()) for name, layers in names.items()}


ATTENTION = {
    "img_attn.qkv": "attn.to_q attn.to_k attn.to_v",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "txt_attn.proj": "attn.to_add_out",
}
MODULATION = "final_layer.adaLN_modulation.1"  # shift before scale; `norm_out.linear` has the scale first
ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    MODULATION: "norm_out.linear",
}
FLUX1_DOUBLE = ATTENTION | {
    "img_mod.lin": "norm1.linear",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mod.lin": "norm1_context.linear",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
FLUX1_SINGLE = {
    "modulation.lin": "norm.linear",
    "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
    "linear2": "proj_out",
}
FLUX1_EMBEDDERS = {
    "time_in.in_layer": "timestep_embedder.linear_1",
    "time_in.out_layer": "timestep_embedder.linear_2",
    "guidance_in.in_layer": "guidance_embedder.linear_1",
    "guidance_in.out_layer": "guidance_embedder.linear_2",
    "vector_in.in_layer": "text_embedder.linear_1",
    "vector_in.out_layer": "text_embedder.linear_2",
}
FLUX2_DOUBLE = ATTENTION | {
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
}
FLUX2_SINGLE = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}
FLUX2_EMBEDDERS = {name: layer for name, layer in FLUX1_EMBEDDERS.items() if not name.startswith("vector")}
FLUX2_MODULATION = {
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
}
BFL: dict[str, Table] = {  # class of the transformer in diffusers: BFL's names
    "FluxTransformer2DModel": _table("double_blocks.{}.", "transformer_blocks.{}.", FLUX1_DOUBLE)
    | _table("single_blocks.{}.", "single_transformer_blocks.{}.", FLUX1_SINGLE)
    | _table("", "time_text_embed.", FLUX1_EMBEDDERS)
    | _table("", "", ENDS),
    "Flux2Transformer2DModel": _table("double_blocks.{}.", "transformer_blocks.{}.", FLUX2_DOUBLE)
    | _table("single_blocks.{}.", "single_transformer_blocks.{}.", FLUX2_SINGLE)
    | _table("", "time_guidance_embed.", FLUX2_EMBEDDERS)
    | _table("", "", FLUX2_MODULATION | ENDS),
}

KEY = re.compile(
    r"(?:transformer\.|diffusion_model\.|lora_unet_|lora_transformer_)?"
    r"(?P<layer>.+)\.(?:(?P<A>lora_A|lora_down)\.weight|(?P<B>lora_B|lora_up)\.weight|(?P<alpha>alpha))"
)
NUMBER = re.compile(r"(?<=[._])\d+(?=[._])")  # of a block, the first in a layer's name


class Pair(NamedTuple):
    """The two matrices of a LoRA on one layer: what it adds to the layer's weight is `up_OR @ down_RI`."""

    down_RI: Tensor
    up_OR: Tensor


def layers(kind: str, key: str) -> tuple[str, ...]:
    """Our names of the layers that a key in a LoRA's file is about, for a transformer of class `kind`; none if the key
    is not known."""
    match = KEY.fullmatch(key)
    return _layers(kind, match["layer"]) if match else ()


def foreign(kind: str, keys: Iterable[str]) -> bool:
    """Whether any known key is spelled as diffusers, and we, would not."""
    for key in keys:
        if known := layers(kind, key):
            ours = {f"{layer}.lora_{matrix}.weight" for layer in known for matrix in "AB"}
            if len(known) > 1 or key.removeprefix("transformer.") not in ours:
                return True
    return False


def grouped(entries: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Entries of a LoRA's file by layer, under its name there without prefix: `A`, `B` and `alpha` of each."""
    found: dict[str, dict[str, T]] = {}
    for key, entry in entries.items():
        if match := KEY.fullmatch(key):
            part = next(part for part in ("A", "B", "alpha") if match[part])
            found.setdefault(match["layer"], {})[part] = entry
    return found


def to_ours(transformer: Transformer, weights: Weights) -> Weights:
    """A LoRA under other names as `LAYER.lora_A.weight` (R, I) and `LAYER.lora_B.weight` (O, R) of our layers.

    What was stacked is cut: each of the layers gets those ranks that reach it, none if none does. Alpha is multiplied
    into the matrices; where the file says none, alpha is the rank.

    Raises:
        ValueError: a weight is no matrix of a LoRA, of another width, there twice, or its alpha makes no sense.
    """
    modules: dict[str, Any] = dict(transformer.named_modules())
    ours: Weights = {}
    if odd := next((key for key in weights if not KEY.fullmatch(key)), None):
        raise ValueError(f"it holds {odd}, which is no matrix of a LoRA")
    for name, matrices in grouped(weights).items():
        pair = Pair(matrices["A"], matrices["B"])
        if "alpha" in matrices:
            pair = _scaled(pair, float(matrices["alpha"]) / len(pair.down_RI))
        if name.replace("_", ".") == MODULATION.replace("_", "."):
            pair = pair._replace(up_OR=_swapped(pair.up_OR))
        known = _layers(type(transformer).__name__, name)
        for layer, cut in _cut(pair, known, [modules[layer].out_features for layer in known]):
            if f"{layer}.lora_A.weight" in ours:
                raise ValueError(f"{layer} is there twice, under different names")
            ours |= _entries(layer, cut)
    return ours


def to_ai_toolkit(kind: str, weights: Weights, settings: Mapping[str, Any]) -> Weights:
    """A LoRA under our names as ai-toolkit writes it, which ComfyUI reads: alpha is the rank, and for FLUX.2 the names
    are BFL's.

    Layers that BFL stack become one whose rank is the sum of theirs, with a block-diagonal B, which computes the same;
    if all have the same A, it is kept and the rank as well. `to_ours` takes both apart again.

    Args:
        kind: class of the transformer, one of `BFL`.
        settings: of PEFT, as the file's metadata tells them without prefix; empty if it tells none.

    Raises:
        ValueError: it is more than pairs of matrices under our names, a DoRA for example.
    """
    if odd := next((key for key in weights if not layers(kind, key) or foreign(kind, [key])), None):
        raise ValueError(f"it holds {odd}, for which that format has no place")
    pairs = {
        layer: _scaled(pair, _strength(layer, len(pair.down_RI), settings))
        for layer, matrices in grouped(weights).items()
        for pair in [Pair(matrices["A"], matrices["B"])]
    }
    if kind == "FluxTransformer2DModel":
        return _all_entries({f"transformer.{layer}": pair for layer, pair in pairs.items()})
    return _all_entries({f"diffusion_model.{name}": pair for name, pair in _to_bfl(kind, pairs)})


@cache
def _spellings(kind: str) -> Table:
    """Every name of a layer, with `{}` for the number of its block."""
    dotted = {ours: (ours,) for stacked in BFL[kind].values() for ours in stacked} | BFL[kind]
    return dotted | {name.replace(".", "_"): stacked for name, stacked in dotted.items()}


def _layers(kind: str, name: str) -> tuple[str, ...]:
    pattern, number = _numbered(name)
    return tuple(layer.format(number) for layer in _spellings(kind).get(pattern, ()))


def _numbered(name: str) -> tuple[str, str]:
    """A layer's name with `{}` for the number of its block, and the number, empty if it has none."""
    match = NUMBER.search(name)
    return (NUMBER.sub("{}", name, count=1), match[0]) if match else (name, "")


def _to_bfl(kind: str, pairs: Mapping[str, Pair]) -> Iterator[tuple[str, Pair]]:
    homes = {layer: name for name, stacked in BFL[kind].items() for layer in stacked}
    wanted = {(homes[pattern], number): None for pattern, number in map(_numbered, pairs)}  # in order, each once
    for name, number in wanted:
        stacked = _stacked([pairs.get(layer.format(number)) for layer in BFL[kind][name]])
        yield name.format(number), stacked._replace(up_OR=_swapped(stacked.up_OR)) if name == MODULATION else stacked


def _stacked(pairs: Sequence[Pair | None]) -> Pair:
    """One pair for layers of equal width whose outputs come in a row; nothing is added to those that have none."""
    first, *others = given = [pair for pair in pairs if pair]
    shared = all(torch.equal(first.down_RI, other.down_RI) for other in others)
    ranks = first.up_OR.shape[1] if shared else 0
    ups = [pair.up_OR if pair else first.up_OR.new_zeros(len(first.up_OR), ranks) for pair in pairs]
    if shared:
        return Pair(first.down_RI, torch.cat(ups))
    return Pair(torch.cat([pair.down_RI for pair in given]), torch.block_diag(*ups))


def _cut(pair: Pair, names: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, Pair]]:
    """One pair for each of the layers that are stacked in a layer."""
    if sum(widths) != len(pair.up_OR):
        raise ValueError(
            f"{' + '.join(names)} is {sum(widths)} wide in this base, and {len(pair.up_OR)} in the adapter"
        )
    idle = len(names) == 1 or not pair.up_OR.any()
    for name, up_OR in zip(names, pair.up_OR.split(list(widths)), strict=True):
        reaching = torch.ones_like(up_OR[0], dtype=torch.bool) if idle else up_OR.any(0)
        if reaching.any():
            yield name, Pair(pair.down_RI[reaching], up_OR[:, reaching])


def _scaled(pair: Pair, strength: float) -> Pair:
    """The pair, that much stronger; a share on either side, so that neither leaves the range of float16."""
    if strength == 1:
        return pair
    if not 0 < strength < math.inf:
        raise ValueError(f"an alpha makes it {strength:g} times as strong, which makes no sense")
    share = 2.0 ** round(math.log2(strength) / 2)  # a power of two: exact
    down_RI, up_OR = (
        (matrix.float() * factor).to(matrix.dtype)
        for matrix, factor in zip(pair, (share, strength / share), strict=True)
    )
    return Pair(down_RI, up_OR)


def _strength(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """How PEFT scales a layer's LoRA."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    if not settings:
        return 1.0
    config = LoraConfig(**settings)
    special: dict[str, float] = config.alpha_pattern or {}
    alpha = special.get(str(get_pattern_key(list(special), layer)), config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _swapped(up_OR: Tensor) -> Tensor:
    return torch.cat(up_OR.chunk(2)[::-1])


def _entries(layer: str, pair: Pair) -> Weights:
    return {f"{layer}.lora_{letter}.weight": matrix.contiguous() for letter, matrix in zip("AB", pair, strict=True)}


def _all_entries(pairs: Mapping[str, Pair]) -> Weights:
    return {key: matrix for layer, pair in pairs.items() for key, matrix in _entries(layer, pair).items()}
