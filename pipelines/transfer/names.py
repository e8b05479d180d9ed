"""What tools call the layers of a LoRA: diffusers, whose names are ours, and Black Forest Labs (BFL), with dots or, as
kohya spells them, with underscores.

BFL stack some layers of diffusers in one, `qkv` for example. ai-toolkit writes the names of diffusers for FLUX.1 and
those of BFL for FLUX.2; ComfyUI reads both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar

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
    r"(?:transformer\.|diffusion_model\.|lora_unet_|lora_transformer_|lycoris_)?"
    r"(?P<layer>.+)\.(?:(?P<A>lora_A|lora_down)\.weight|(?P<B>lora_B|lora_up)\.weight|"
    r"(?P<other>alpha|lokr_w[12](?:_[ab])?|hada_w[12]_[ab]))"
)
NUMBER = re.compile(r"(?<=[._])\d+(?=[._])")  # of a block, the first in a layer's name


def layers(kind: str, key: str) -> tuple[str, ...]:
    """Our names of the layers that a key in a LoRA's file is about, for a transformer of class `kind`; none if the key
    is not known."""
    match = KEY.fullmatch(key)
    return spelled(kind, match["layer"]) if match else ()


def foreign(kind: str, keys: Iterable[str]) -> bool:
    """Whether any known key is spelled as diffusers, and we, would not, or some have the prefix and some have not."""
    prefixes = set()
    for key in keys:
        if known := layers(kind, key):
            prefixes.add(key.startswith("transformer."))
            ours = {f"{layer}.lora_{matrix}.weight" for layer in known for matrix in "AB"}
            if len(known) > 1 or key.removeprefix("transformer.") not in ours:
                return True
    return len(prefixes) > 1


def grouped(entries: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Entries of an adapter's file by layer, under its name there without prefix: `A`, `B` and `alpha` of each, or what
    LyCORIS has instead. Raises ValueError for one that is there twice."""
    found: dict[str, dict[str, T]] = {}
    for key, entry in entries.items():
        if match := KEY.fullmatch(key):
            part = match["other"] or ("A" if match["A"] else "B")
            parts = found.setdefault(match["layer"], {})
            if part in parts:
                raise ValueError(f"{match['layer']} is there twice, under different names")
            parts[part] = entry
    return found


@cache
def _spellings(kind: str) -> Table:
    """Every name of a layer, with `{}` for the number of its block."""
    dotted = {ours: (ours,) for stacked in BFL[kind].values() for ours in stacked} | BFL[kind]
    return dotted | {name.replace(".", "_"): stacked for name, stacked in dotted.items()}


def spelled(kind: str, name: str) -> tuple[str, ...]:
    """Our names of the layers that are stacked in one of this name, without prefix; none if it is not known."""
    pattern, number = numbered(name)
    return tuple(layer.format(number) for layer in _spellings(kind).get(pattern, ()))


def numbered(name: str) -> tuple[str, str]:
    """A layer's name with `{}` for the number of its block, and the number, empty if it has none."""
    match = NUMBER.search(name)
    return (NUMBER.sub("{}", name, count=1), match[0]) if match else (name, "")
