"""Published adapters with random weights: real files in a real registry, without the minutes of training."""

import io
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from peft import LoraConfig
from PIL import Image

from infra import registry
from infra.registry import Version
from infra.registry.layout import PROMPT
from pipelines.transfer import bases


@cache
def transformer_of(base: Path) -> Any:
    """The transformer of a base, to make LoRAs for."""
    return getattr(diffusers, str(bases.class_of(base))).from_pretrained(base / "transformer")


def lora_bytes(base: Path, seed: int, *, rank: int = 4, targets: Sequence[str] = (), spread: float = 0.05) -> bytes:
    """A LoRA's file: on all Linear layers, modulations too, or on some, and strong enough to be seen."""
    transformer = transformer_of(base)
    every = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=8, target_modules=list(targets) or every))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in transformer.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * spread
    with tempfile.TemporaryDirectory() as folder:
        transformer.save_lora_adapter(folder, weight_name="adapter.safetensors")
        transformer.unload_lora()
        return Path(folder, "adapter.safetensors").read_bytes()


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Colours that differ with the seed."""
    corners = np.random.default_rng(seed).integers(20, 236, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)


def publish(
    address: str,
    name: str,
    base: Path,
    seed: int,
    *,
    attention: str = "prefix",
    prompt: bytes = b"",
    compact: int = 1,
    **lora: object,
) -> Version:
    """A version with a pair of its own, as training publishes them, and a text if there is one."""
    before, after = png(picture(seed * 2 + 1000)), png(picture(seed * 2 + 1001))
    about = {
        "base": {"name": base.name, "revision": bases.revision_of(base)},
        "attention": attention,
        "pairs": [{"name": "one", "before": "pairs/one_before.png", "after": "pairs/one_after.png"}],
        "exemplars": ["one"],
        "scores": {},
    } | ({"compact": compact} if compact > 1 else {})
    files = {
        "adapter.safetensors": lora_bytes(base, seed, **lora),  # type: ignore[arg-type]
        "pairs/one_before.png": before,
        "pairs/one_after.png": after,
    }
    return registry.publish(address, name, files | ({PROMPT: prompt} if prompt else {}), about)
