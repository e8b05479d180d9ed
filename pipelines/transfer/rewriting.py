"""Adapters of any tool and kind that can be a LoRA, written anew in the plain format of diffusers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import load_file

from infra.errors import AdapterNotFound
from pipelines.transfer import conversion, lorafile, lycoris, names, peftfile
from pipelines.transfer.factors import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.transfer.lorafile import Transformer


class Rewritten(NamedTuple):
    """A LoRA in the plain format of diffusers: its file, the highest rank of its layers, and what each layer lost where
    it was a product of another kind."""

    path: Path
    rank: int
    losses: Sequence[Loss] = ()

    @property
    def error(self) -> float:
        """Relative Frobenius error of all layers together, 0 to 1."""
        of = math.fsum(loss.of for loss in self.losses)
        return math.sqrt(math.fsum(loss.left_out for loss in self.losses) / of) if of else 0.0


def rewritten(transformer: Transformer, path: Path, folder: Path, rank: int | None = None) -> Rewritten:
    """An adapter's file, or the folder that PEFT wrote, anew in the plain format of diffusers.

    Layers may be called as diffusers, ai-toolkit, kohya or Black Forest Labs call them (see `names`).

    Args:
        transformer: may be on `meta`.
        rank: of the LoRA that a LoKr or LoHa becomes at most; by default `factors.EXACT`, and nothing is left out.

    Raises:
        AdapterNotFound: there is no such file, it is no adapter that is known here, or not one for this transformer.
    """
    path = peftfile.weights_in(path)
    lorafile.file_digest(path)
    outline = lorafile.outline_of(path)
    products = any(map(lycoris.product_of, outline.shapes))
    if rank and not products:
        raise AdapterNotFound(f"The adapter {path.name} is a LoRA already, whose ranks stay. Leave --rank out.")
    keys = [key.removeprefix(peftfile.KEYS) for key in outline.shapes]
    lorafile.check_layers(transformer, path, dict(zip(keys, outline.shapes.values(), strict=True)))
    weights, settings, losses = _read(transformer, path, outline, rank)
    lorafile.check_widths(transformer, path, {key: tuple(weight.shape) for key, weight in weights.items()})
    lorafile.check_finite(path, weights)
    lorafile.loader_of(transformer).save_lora_weights(
        save_directory=folder,
        transformer_lora_layers=weights,
        weight_name=path.name,
        transformer_lora_adapter_metadata=settings or None,
    )
    highest = max(len(weight) for key, weight in weights.items() if ".lora_A." in key)
    return Rewritten(folder / path.name, highest, losses if products else ())


def _read(
    transformer: Transformer, path: Path, outline: lorafile.Outline, rank: int | None
) -> tuple[conversion.Weights, dict[str, Any], list[Loss]]:
    """The matrices under our names, the settings of PEFT, if the file tells them, and what a rank made them lose."""
    weights = {key: _wide(weight) for key, weight in load_file(path).items()}
    lorafile.check_finite(path, {key: weight for key, weight in weights.items() if not key.endswith(".alpha")})
    settings = lorafile.settings_in(outline.metadata)
    peft = any(key.startswith(peftfile.KEYS) for key in weights)
    if not peft and not names.foreign(type(transformer).__name__, weights):
        return lorafile.bare(weights), settings, []
    if settings:
        raise AdapterNotFound(
            f"The adapter {path.name} has settings of PEFT, but other names or an alpha beside them; which alpha counts"
            " is not clear. Save it with `save_lora_adapter` of diffusers."
        )
    try:
        ours, losses = conversion.converted(transformer, peftfile.baked(weights, path) if peft else weights, rank)
    except ValueError as error:
        raise AdapterNotFound(f"The adapter {path.name} cannot be read: {error}.") from error
    return ours, {}, losses


def _wide(weight: Tensor) -> Tensor:
    """Numbers of 8 bits as bfloat16, which has all of them and can be computed with."""
    return weight.bfloat16() if weight.is_floating_point() and weight.itemsize == 1 else weight
