"""Adapters with random weights, published like trained ones."""

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig

from infra import registry
from infra.registry import Version
from pipelines.transfer import bases
from tests.tiny import tiny_transformer

TARGETS = ["to_q", "to_k", "to_v"]


def publish_random_adapter(address: str, name: str, base: Path, before: bytes, after: bytes, seed: int = 0) -> Version:
    """A LoRA for the tiny base that visibly changes what it does, with one pair that shows its edit."""
    with tempfile.TemporaryDirectory() as folder:
        _save_lora(Path(folder), seed)
        weights = Path(folder, "adapter.safetensors").read_bytes()
    pair = {"name": "a", "before": "pairs/a_before.png", "after": "pairs/a_after.png"}
    about = {
        "base": {"name": base.name, "revision": bases.revision_of(base)},
        "attention": "prefix",
        "pairs": [pair],
        "exemplars": ["a"],
    }
    files = {"adapter.safetensors": weights, pair["before"]: before, pair["after"]: after}
    return registry.publish(address, name, files, about)


def _save_lora(folder: Path, seed: int) -> None:
    transformer = tiny_transformer()
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    transformer.save_lora_adapter(folder, weight_name="adapter.safetensors")
