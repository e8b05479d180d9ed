"""LoRA on every linear layer of the transformer's blocks, through PEFT (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipelines.transfer.adapters import layers_of
from pipelines.transfer.lorafile import loader_of

if TYPE_CHECKING:
    from pipelines.transfer.lorafile import Transformer

NAME = "adapter"  # of the LoRA inside the transformer while it is trained


class LoraWeights(nn.Module):
    """The trainable matrices of a transformer that has just been given a LoRA, as a module of its own.

    The matrices are the transformer's own tensors, in float32: training this module trains the adapter, and copying
    it copies nothing of the base.
    """

    def __init__(self, transformer: Transformer, rank: int, seed: int) -> None:
        from peft import LoraConfig

        from training.fit.fused import fuse

        super().__init__()
        layers = layers_of(transformer)
        transformer.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # PEFT draws the first matrices from the global generator
            transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=NAME)
        fuse(transformer)
        found = {name: weight for name, weight in transformer.named_parameters() if weight.requires_grad}
        for weight in found.values():
            weight.data = weight.data.float()
        self.names = tuple(found)
        self.weights = nn.ParameterList(found.values())


@contextmanager
def swapped(weights: LoraWeights, others: LoraWeights) -> Iterator[None]:
    """The transformer with other matrices, for a while: those of the average, or the best so far."""
    kept = [weight.data for weight in weights.weights]
    for weight, other in zip(weights.weights, others.weights, strict=True):
        weight.data = other.data
    try:
        yield
    finally:
        for weight, data in zip(weights.weights, kept, strict=True):
            weight.data = data


def save(transformer: Transformer, folder: Path, name: str) -> Path:
    """Write the LoRA as plain diffusers does, with its PEFT settings in the metadata; returns the file."""
    from peft import get_peft_model_state_dict

    loader_of(transformer).save_lora_weights(
        save_directory=folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=NAME),
        weight_name=name,
        transformer_lora_adapter_metadata=transformer.peft_config[NAME].to_dict(),
    )
    return folder / name
