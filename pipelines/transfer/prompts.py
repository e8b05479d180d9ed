"""Prompt embeddings, made once: a base's own text encoder is loaded, used and let go before any image is edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.errors import BaseNotFound, UsageError
from pipelines.transfer import bases
from pipelines.transfer.family import Prompt

TOKENS = "prompt_embeds"  # the tensors in a file of prompt embeddings: (1, T, E),
POOLED = "pooled_prompt_embeds"  # and (1, P) where a base takes such a thing;
NEGATIVE = "negative_"  # before both names: the text that results are guided away from, and
GUIDANCE = "guidance"  # () how far
SPARED = ("transformer", "vae", "scheduler")  # what a text needs nothing of


@torch.inference_mode()
def embed(
    base: str | Path,
    text: str,
    device: str | torch.device | None = None,
    *,
    guidance: float = 1.0,
    negative: str = "",
) -> dict[str, Tensor]:
    """What a base's text encoder, or encoders, make of a text.

    Args:
        base: a diffusers folder with a text encoder, or a Hub id.
        guidance, negative: with a guidance other than 1, results are led away from the negative text.
        device: `cuda` if there is one, else `cpu`; bfloat16 on a GPU, else float32.

    Returns:
        `prompt_embeds`, (1, T, E), and `pooled_prompt_embeds`, (1, P), if the base takes a pooled text too; on the CPU.
        With guidance also that as a number, and the negative text in the same way (`negative_prompt_embeds` ...).

    Raises:
        BaseNotFound: no such base, or one without a text encoder.
    """
    import diffusers.utils.logging
    import transformers.utils.logging
    from diffusers import DiffusionPipeline

    for package in (diffusers, transformers):  # both talk into what a command has to say
        package.utils.logging.disable_progress_bar()
        package.utils.logging.set_verbosity_error()
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
    pipeline.to(device)
    named = _said(pipeline, text, device)
    if guidance != 1:
        named |= {NEGATIVE + name: tensor for name, tensor in _said(pipeline, negative, device).items()}
        named[GUIDANCE] = torch.tensor(guidance)
    return {name: tensor.cpu().contiguous() for name, tensor in named.items()}


def _said(pipeline: Any, text: str, device: torch.device) -> dict[str, Tensor]:
    encode = pipeline.encode_prompt
    told = encode(text, device=device) if not hasattr(pipeline, "text_encoder_2") else encode(text, None, device=device)
    tokens, *others = told[:-1]  # the last are position ids
    return {TOKENS: tokens, **({POOLED: others[0]} if others else {})}


def parsed(data: bytes, name: str) -> Prompt:
    """Precomputed prompt embeddings, (1, T, E), and pooled ones, (1, P), if a file has them; `name` is told in errors.

    Raises:
        UsageError: it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        prompt = _prompt(tensors, "", name)
        if GUIDANCE in tensors:
            prompt = replace(
                prompt, negative=_prompt(tensors, NEGATIVE, name), guidance=float(tensors[GUIDANCE].item())
            )
    except (SafetensorError, KeyError) as error:
        missing = f"`{error.args[0]}`" if isinstance(error, KeyError) else f"`{TOKENS}`"
        raise UsageError(
            f"{name}: prompt embeddings are a tensor {missing} (1, T, E) in a .safetensors file."
        ) from None
    return prompt


def _prompt(tensors: dict[str, Tensor], kind: str, name: str) -> Prompt:
    tokens, pooled = tensors[kind + TOKENS], tensors.get(kind + POOLED)
    if tokens.ndim != 3 or len(tokens) != 1:
        raise UsageError(f"{name}: prompt embeddings are (1, T, E), not {tuple(tokens.shape)}.")
    if pooled is not None and (pooled.ndim != 2 or len(pooled) != 1):
        raise UsageError(f"{name}: pooled prompt embeddings are (1, P), not {tuple(pooled.shape)}.")
    return Prompt(tokens, pooled)


def of_base(folder: Path) -> Prompt | None:
    """The text that a base brings, None where it brings none. Raises UsageError for a file that is no such thing."""
    path = bases.prompt_file(folder)
    return parsed(path.read_bytes(), str(path)) if path else None


def check_width(prompt: Prompt, widths: tuple[int, int | None], name: str) -> None:
    """Raise UsageError for embeddings that a base of these widths (`bases.text_widths`) cannot take."""
    if prompt.negative:
        check_width(prompt.negative, widths, name)
    pooled = None if prompt.pooled_1P is None or widths[1] is None else prompt.pooled_1P.shape[-1]
    for what, given, taken in (("", prompt.tokens_1TE.shape[-1], widths[0]), ("pooled ", pooled, widths[1])):
        if given is not None and given != taken:
            raise UsageError(
                f"{name}: these {what}prompt embeddings are {given} wide, but the base takes {taken}. Make them with"
                " `edit-transfer embed` and this base."
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
