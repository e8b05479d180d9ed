"""Prompt embeddings, made once: a base's own text encoder is loaded, used and let go before any image is edited."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from infra.errors import BaseNotFound

TOKENS = "prompt_embeds"  # the tensors in a file of prompt embeddings: (1, T, E),
POOLED = "pooled_prompt_embeds"  # and (1, P) where a base takes such a thing
SPARED = ("transformer", "vae", "scheduler")  # what a text needs nothing of


@torch.inference_mode()
def embed(base: str | Path, text: str, device: str | torch.device | None = None) -> dict[str, Tensor]:
    """What a base's text encoder, or encoders, make of a text.

    Args:
        base: a diffusers folder with a text encoder, or a Hub id.
        device: `cuda` if there is one, else `cpu`; bfloat16 on a GPU, else float32.

    Returns:
        `prompt_embeds`, (1, T, E), and `pooled_prompt_embeds`, (1, P), if the base takes a pooled text too; on the CPU.

    Raises:
        BaseNotFound: no such base, or one without a text encoder.
    """
    from diffusers import DiffusionPipeline

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        pipeline = DiffusionPipeline.from_pretrained(base, dtype=dtype, **dict.fromkeys(SPARED))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise BaseNotFound(
            f"The text encoder of {Path(base).name} could not be loaded ({_first_line(error)}). Give a diffusers"
            " folder with model_index.json, text_encoder and tokenizer, or a Hub id."
        ) from error
    if getattr(pipeline, "text_encoder", None) is None:
        raise BaseNotFound(f"The base {Path(base).name} has no text encoder. Without one it is used without a text.")
    encode = pipeline.to(device).encode_prompt
    told = encode(text, device=device) if not hasattr(pipeline, "text_encoder_2") else encode(text, None, device=device)
    tokens, *others = told[:-1]  # the last are position ids
    named = {TOKENS: tokens, **({POOLED: others[0]} if others else {})}
    return {name: tensor.cpu().contiguous() for name, tensor in named.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
