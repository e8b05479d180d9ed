"""Adapters: LoRA weights in a safetensors file, in the plain format of diffusers, put into a base's transformer."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from safetensors import SafetensorError, safe_open

from infra.errors import AdapterNotFound

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

    Transformer: TypeAlias = Flux2Transformer2DModel | FluxTransformer2DModel

PREFIX = "transformer"  # of keys that a pipeline wrote; those a model wrote have none
PEFT_KEYS = "base_model.model."  # how keys begin that PEFT itself wrote
MARK = ".lora_"  # between the name of a module and that of its LoRA matrix
NAME = "worn{}"  # of each LoRA inside the transformer

Shapes = dict[str, tuple[int, ...]]  # key in a LoRA's file: shape of what it names


@dataclass(frozen=True)
class Lora:
    """A LoRA's file, and how strongly it counts: 1 as it was trained, 0 not at all."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class Outline:
    """A LoRA without its numbers: the shapes of its matrices, and the settings in its metadata."""

    shapes: Shapes
    metadata: dict[str, str]


def digest_of(loras: Sequence[Lora]) -> str | None:
    """Hex SHA-256 of an adapter's file; of several, or with a scale, one over all of that; None for none.

    Raises:
        AdapterNotFound: there is no such file.
    """
    told = [(_file_digest(lora.path), float(lora.scale)) for lora in loras]
    if not told:
        return None
    if len(told) == 1 and told[0][1] == 1:
        return told[0][0]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise AdapterNotFound(f"There is no adapter file at {path}. Give the path of a LoRA in a .safetensors file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    names = [NAME.format(index) for index in range(len(loras))]
    try:
        outlines = [_outline(lora.path) for lora in loras]
        swap = bool(worn) and list(worn) == outlines
        if not swap:
            take_off(transformer)
        for name, lora, outline in zip(names, loras, outlines, strict=True):
            _load(transformer, lora.path, name, outline, swap)
    except AdapterNotFound:
        take_off(transformer)
        raise
    if names:
        transformer.set_adapters(names, [float(lora.scale) for lora in loras])
        transformer.requires_grad_(False).eval()
    return outlines


def hang(transformer: Transformer, lora: Lora, name: str) -> None:
    """Put a LoRA beside those that the transformer has, under a name of its own, for `Mixture.worn`.

    Raises:
        AdapterNotFound: there is no such file, it is not a LoRA, or not one for this transformer.
    """
    _file_digest(lora.path)
    _load(transformer, lora.path, name, _outline(lora.path), swap=False)
    transformer.set_adapters([name], [float(lora.scale)])
    transformer.requires_grad_(False).eval()


def take_off(transformer: Transformer) -> None:
    """The transformer as the base has it, without LoRA layers."""
    if getattr(transformer, "peft_config", None):
        transformer.unload_lora()


def _load(transformer: Transformer, path: Path, name: str, outline: Outline, swap: bool) -> None:
    _check_fit(transformer, path, _bare(outline.shapes))
    prefix = PREFIX if _prefixed(outline.shapes) else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        try:
            transformer.load_lora_adapter(
                path.parent,
                weight_name=path.name,
                prefix=prefix,
                adapter_name=name,
                hotswap=swap,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:  # other shapes, broken settings
            raise AdapterNotFound(f"The adapter {path.name} does not fit this base: {_first_line(error)}") from error


def _outline(path: Path) -> Outline:
    if path.suffix != ".safetensors":
        raise AdapterNotFound(f"The adapter {path} is no .safetensors file. Save the LoRA as safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
            outline = Outline(shapes, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AdapterNotFound(f"The adapter {path} is broken ({error}). Copy it again.") from error
    if not any(MARK in key for key in shapes):
        raise AdapterNotFound(f"The file {path} holds no LoRA. Give one that diffusers or peft saved.")
    return outline


def _prefixed(shapes: Shapes) -> bool:
    return all(key.startswith(f"{PREFIX}.") for key in shapes)


def _bare(shapes: Shapes) -> Shapes:
    """Keys as a model writes them."""
    return {key.removeprefix(f"{PREFIX}."): shape for key, shape in shapes.items()} if _prefixed(shapes) else shapes


def rewritten(transformer: Transformer, path: Path, folder: Path) -> tuple[Path, int]:
    """A LoRA's file written anew in the plain format of diffusers, and its rank; `transformer` may be on `meta`.

    Other tools' names of layers become those of diffusers, as far as diffusers itself knows them.

    Raises:
        AdapterNotFound: there is no such file, it is not a LoRA, or not one for this transformer.
    """
    loader = loader_of(transformer)
    _file_digest(path)
    if any(key.startswith(PEFT_KEYS) for key in _outline(path).shapes):
        raise AdapterNotFound(
            f"The adapter {path.name} was saved by PEFT alone, whose file does not say its alpha. Save it with"
            " `save_lora_adapter` of diffusers."
        )
    try:
        state, metadata = loader.lora_state_dict(
            path.parent, weight_name=path.name, local_files_only=True, return_lora_metadata=True
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise AdapterNotFound(f"The adapter {path.name} cannot be read: {_first_line(error)}") from error
    state, metadata = ({key.removeprefix(f"{PREFIX}."): value for key, value in (each or {}).items()}
                       for each in (state, metadata))  # fmt: skip
    _check_fit(transformer, path, {key: tuple(weight.shape) for key, weight in state.items()})
    loader.save_lora_weights(
        save_directory=folder,
        transformer_lora_layers=state,
        weight_name=path.name,
        transformer_lora_adapter_metadata=metadata or None,
    )
    return folder / path.name, max(len(weight) for key, weight in state.items() if ".lora_A." in key)


def loader_of(transformer: Transformer) -> Any:
    """What reads and writes files of LoRAs for a transformer of this class in diffusers."""
    from diffusers import FluxTransformer2DModel, loaders

    flux1 = isinstance(transformer, FluxTransformer2DModel)
    return loaders.FluxLoraLoaderMixin if flux1 else loaders.Flux2LoraLoaderMixin


def _check_fit(transformer: Transformer, path: Path, shapes: Shapes) -> None:
    """Raise unless every key names a layer of the transformer of that width; diffusers would pass over some of the
    others in silence."""
    known = {name.replace(".base_layer", ""): module for name, module in transformer.named_modules()}
    strangers = sorted(key for key in shapes if key.partition(MARK)[0] not in known)
    if strangers:
        raise AdapterNotFound(
            f"The adapter {path} was made for another base: {len(strangers)} of its {len(shapes)} weights have no place"
            f" in this one, {strangers[0]} among them. Use the base that it was trained on."
        )
    for key, shape in shapes.items():
        layer, _, matrix = key.partition(MARK)
        side = 1 if matrix.startswith("A") else 0
        width = getattr(known[layer], ("out_features", "in_features")[side], None)
        if width and len(shape) == 2 and shape[side] != width:
            raise AdapterNotFound(
                f"The adapter {path} does not fit this base: {layer} is {width} wide here, and {shape[side]} in the"
                " adapter. Use the base that it was trained on."
            )


def _first_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])
