"""Adapters: LoRA weights in a safetensors file, in the plain format of diffusers, put into a base's transformer."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn

from infra.errors import AdapterNotFound
from pipelines.transfer import lorafile, lycoris, names, peftfile
from pipelines.transfer.invariance import make_invariant
from pipelines.transfer.lorafile import Outline
from pipelines.transfer.tuning import linear_layers, regroup

if TYPE_CHECKING:
    from pipelines.transfer.lorafile import Transformer

NAME = "worn{}"  # of each LoRA inside the transformer


@dataclass(frozen=True)
class Lora:
    """A LoRA's file, and how strongly it counts: 1 as it was trained, 0 not at all."""

    path: Path
    scale: float = 1.0


def digest_of(loras: Sequence[Lora]) -> str | None:
    """Hex SHA-256 of an adapter's file; of several, or with a scale, one over all of that; None for none.

    Raises:
        AdapterNotFound: there is no such file.
    """
    told = [(lorafile.file_digest(lora.path), float(lora.scale)) for lora in loras]
    if not told:
        return None
    if len(told) == 1 and told[0][1] == 1:
        return told[0][0]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def layers_of(transformer: nn.Module) -> list[str]:
    """Where a LoRA of ours sits: the linear layers of the blocks, by the names that they have without any."""
    return [name.removesuffix(".base_layer") for name in linear_layers(transformer)]


def wear(transformer: Transformer, loras: Sequence[Lora], worn: Sequence[Outline] = ()) -> list[Outline]:
    """Put these LoRAs into the transformer instead of those it has, unfused and switched on. None takes all off.

    Args:
        worn: what the last call returned. LoRAs of the same outlines only change places with those that are worn,
            which takes milliseconds.

    Returns:
        What is worn now.

    Raises:
        AdapterNotFound: a file is not a LoRA, or not one for this transformer; it is then left without any.
    """
    slots = [NAME.format(index) for index in range(len(loras))]
    try:
        outlines = [lorafile.outline_of(lora.path) for lora in loras]
        swap = bool(worn) and list(worn) == outlines
        if not swap:
            take_off(transformer)
        for name, lora, outline in zip(slots, loras, outlines, strict=True):
            _load(transformer, lora.path, name, outline, swap)
    except AdapterNotFound:
        take_off(transformer)
        raise
    if slots:
        _switch_on(transformer, slots, loras)
    return outlines


def hang(transformer: Transformer, lora: Lora, name: str) -> None:
    """Put a LoRA beside those that the transformer has, under a name of its own, for `Mixture.worn`.

    Raises:
        AdapterNotFound: there is no such file, it is not a LoRA, or not one for this transformer.
    """
    lorafile.file_digest(lora.path)
    _load(transformer, lora.path, name, lorafile.outline_of(lora.path), swap=False)
    _switch_on(transformer, [name], [lora])


def _switch_on(transformer: Transformer, slots: list[str], loras: Sequence[Lora]) -> None:
    with torch.inference_mode():  # which weights that came to the GPU in it can be touched in alone
        transformer.set_adapters(slots, [float(lora.scale) for lora in loras])
        transformer.requires_grad_(False).eval()


def take_off(transformer: Transformer) -> None:
    """The transformer as the base has it, without LoRA layers."""
    if getattr(transformer, "peft_config", None):
        transformer.unload_lora()


def _load(transformer: Transformer, path: Path, name: str, outline: Outline, swap: bool) -> None:
    _check_spelling(transformer, path, outline)
    lorafile.check_widths(transformer, path, lorafile.bare(outline.shapes))
    settings, weights = lorafile.settings_in(outline.metadata), lorafile.bare(load_file(path))
    lorafile.check_finite(path, {key: weight.to(transformer.dtype) for key, weight in weights.items()})
    with warnings.catch_warnings(), torch.inference_mode(False):  # in which light weights cannot be touched
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        warnings.filterwarnings("ignore", "TorchaoLoraLinear")  # cannot be merged, and never is
        regroup(transformer)
        try:
            transformer.load_lora_adapter(
                weights, prefix=None, metadata=settings or None, adapter_name=name, hotswap=swap
            )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:  # other shapes, broken settings
            raise AdapterNotFound(
                f"The adapter {path.name} does not fit this base: {lorafile.first_line(error)}"
            ) from error
        regroup(transformer)
    make_invariant(transformer)


def _check_spelling(transformer: Transformer, path: Path, outline: Outline) -> None:
    """Raise unless a file is for this transformer and in the plain format of diffusers."""
    kinds = sorted({kind for kind in map(lycoris.product_of, outline.shapes) if kind})
    if any(key.startswith(peftfile.KEYS) for key in outline.shapes):
        kinds = kinds or ["PEFT"]
    else:
        lorafile.check_layers(transformer, path, outline.shapes)
    if kinds or names.foreign(type(transformer).__name__, outline.shapes):
        told = "as other tools do it" if not kinds else "as PEFT does it" if "PEFT" in kinds else f"as a {kinds[0]}"
        raise AdapterNotFound(
            f"The adapter {path} is written {told}. Take it into the registry with `edit-transfer adapters import`,"
            " which makes a plain LoRA of it."
        )
