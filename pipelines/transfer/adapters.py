"""Adapters: LoRA weights in a safetensors file, in the plain format of diffusers, put into a base's transformer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from infra.errors import AdapterNotFound

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel

PREFIX = "transformer"  # of keys that a pipeline wrote; those a model wrote have none
MARK = ".lora_"  # between the name of a module and that of its LoRA matrix


def digest_of(path: Path) -> str:
    """Hex SHA-256 of an adapter's file; raises `AdapterNotFound` when there is none."""
    if not path.is_file():
        raise AdapterNotFound(f"There is no adapter file at {path}. Give the path of a LoRA in a .safetensors file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_adapter(transformer: Flux2Transformer2DModel, path: Path) -> None:
    """Put a LoRA into the transformer, unfused and switched on.

    Raises:
        AdapterNotFound: the file is not a LoRA, or not one for this transformer.
    """
    keys = _keys(path)
    prefix = PREFIX if all(key.startswith(f"{PREFIX}.") for key in keys) else None
    _check_fit(transformer, path, [key.removeprefix(f"{prefix}.") for key in keys])
    try:
        transformer.load_lora_adapter(path.parent, weight_name=path.name, prefix=prefix, local_files_only=True)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:  # other shapes, broken settings in the metadata
        raise AdapterNotFound(f"The adapter {path} does not fit this base: {_first_line(error)}") from error
    transformer.requires_grad_(False).eval()


def _keys(path: Path) -> list[str]:
    if path.suffix != ".safetensors":
        raise AdapterNotFound(f"The adapter {path} is no .safetensors file. Save the LoRA as safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise AdapterNotFound(f"The adapter {path} is broken ({error}). Copy it again.") from error
    if not any(MARK in key for key in keys):
        raise AdapterNotFound(f"The file {path} holds no LoRA. Give one that diffusers or peft saved.")
    return keys


def _check_fit(transformer: Flux2Transformer2DModel, path: Path, keys: list[str]) -> None:
    """Raise unless every key names a part of the transformer; diffusers would pass over the others in silence."""
    known = {name for name, _ in transformer.named_modules()}
    strangers = sorted(key for key in keys if key.partition(MARK)[0] not in known)
    if strangers:
        raise AdapterNotFound(
            f"The adapter {path} was made for another base: {len(strangers)} of its {len(keys)} weights have no place"
            f" in this one, {strangers[0]} among them. Use the base that it was trained on."
        )


def _first_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])
