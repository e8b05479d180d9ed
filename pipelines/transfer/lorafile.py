"""Files of LoRAs: read without their numbers, checked against a base, written anew in the plain format of diffusers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from infra.errors import AdapterNotFound
from pipelines.transfer import names
from pipelines.transfer.tuning import MARK

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

    Transformer: TypeAlias = Flux2Transformer2DModel | FluxTransformer2DModel

PREFIX = "transformer"  # of keys that a pipeline wrote; those a model wrote have none
TEXT_ENCODER = ("text_encoder", "lora_te")  # how keys begin that are not for the transformer
PEFT_KEYS = "base_model.model."  # how keys begin that PEFT itself wrote
SETTINGS = "lora_adapter_metadata"  # under which diffusers keeps the settings of PEFT in a file

T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]  # key in a LoRA's file: shape of what it names


@dataclass(frozen=True)
class Outline:
    """A LoRA without its numbers: the shapes of its matrices, and the settings in its metadata."""

    shapes: Shapes
    metadata: dict[str, str]


def file_digest(path: Path) -> str:
    """Hex SHA-256 of an adapter's file. Raises AdapterNotFound if there is none."""
    if not path.is_file():
        raise AdapterNotFound(f"There is no adapter file at {path}. Give the path of a LoRA in a .safetensors file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def outline_of(path: Path) -> Outline:
    """What a file says of its LoRA. Raises AdapterNotFound if it holds none, or one that would be worn in part only."""
    if path.suffix != ".safetensors":
        raise AdapterNotFound(f"The adapter {path} is no .safetensors file. Save the LoRA as safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
            outline = Outline(shapes, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AdapterNotFound(f"The adapter {path} is broken ({error}). Copy it again.") from error
    if not any(MARK in key for key in shapes):
        raise AdapterNotFound(f"The file {path} holds no LoRA. Give one that diffusers, ai-toolkit or kohya saved.")
    _check_content(path, shapes)
    return outline


def _check_content(path: Path, shapes: Shapes) -> None:
    """Raise for what diffusers would wear a part of, in silence."""
    if strangers := [key for key in shapes if key.startswith(TEXT_ENCODER)]:
        raise AdapterNotFound(
            f"The adapter {path} changes the text encoder too ({len(strangers)} of its {len(shapes)} weights), which"
            " takes no part in an edit here. Train it on the transformer alone."
        )
    if any("dora_scale" in key for key in shapes):
        raise AdapterNotFound(f"The adapter {path} is a DoRA, which diffusers would wear as if it were none.")


def prefixed(keys: Iterable[str]) -> bool:
    """Whether a pipeline wrote these keys."""
    return all(key.startswith(f"{PREFIX}.") for key in keys)


def bare(entries: dict[str, T]) -> dict[str, T]:
    """Keys as a model writes them."""
    return {key.removeprefix(f"{PREFIX}."): entry for key, entry in entries.items()} if prefixed(entries) else entries


def rewritten(transformer: Transformer, path: Path, folder: Path) -> tuple[Path, int]:
    """A LoRA's file written anew in the plain format of diffusers, and its rank; `transformer` may be on `meta`.

    Layers may be called as diffusers, ai-toolkit, kohya or Black Forest Labs call them (see `names`).

    Raises:
        AdapterNotFound: there is no such file, it is not a LoRA, or not one for this transformer.
    """
    file_digest(path)
    outline = outline_of(path)
    if any(key.startswith(PEFT_KEYS) for key in outline.shapes):
        raise AdapterNotFound(
            f"The adapter {path.name} was saved by PEFT alone, whose file does not say its alpha. Save it with"
            " `save_lora_adapter` of diffusers."
        )
    check_layers(transformer, path, outline.shapes)
    weights, settings = _read(transformer, path, outline)
    check_widths(transformer, path, {key: tuple(weight.shape) for key, weight in weights.items()})
    loader_of(transformer).save_lora_weights(
        save_directory=folder,
        transformer_lora_layers=weights,
        weight_name=path.name,
        transformer_lora_adapter_metadata=settings or None,
    )
    return folder / path.name, max(len(weight) for key, weight in weights.items() if ".lora_A." in key)


def _read(transformer: Transformer, path: Path, outline: Outline) -> tuple[names.Weights, dict[str, Any]]:
    """The matrices under our names, and the settings of PEFT, if the file tells them."""
    weights = load_file(path)
    settings = settings_in(outline.metadata)
    if not names.foreign(type(transformer).__name__, weights):
        return bare(weights), settings
    if settings:
        raise AdapterNotFound(
            f"The adapter {path.name} has settings of PEFT, but other names or an alpha beside them; which alpha counts"
            " is not clear. Save it with `save_lora_adapter` of diffusers."
        )
    try:
        return names.to_ours(transformer, weights), {}
    except ValueError as error:
        raise AdapterNotFound(f"The adapter {path.name} cannot be read: {error}.") from error


def settings_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings of PEFT that diffusers keeps in the metadata of a LoRA's file, without prefix; empty if it has none.

    Raises:
        AdapterNotFound: they are broken.
    """
    try:
        settings = json.loads(metadata.get(SETTINGS, "{}"))
        return {key.removeprefix(f"{PREFIX}."): value for key, value in settings.items()}
    except (ValueError, AttributeError) as error:
        raise AdapterNotFound(f"The settings in the adapter's metadata are broken ({error}). Copy it again.") from error


def loader_of(transformer: Transformer) -> Any:
    """What reads and writes files of LoRAs for a transformer of this class in diffusers."""
    from diffusers import FluxTransformer2DModel, loaders

    flux1 = isinstance(transformer, FluxTransformer2DModel)
    return loaders.FluxLoraLoaderMixin if flux1 else loaders.Flux2LoraLoaderMixin


def check_layers(transformer: Transformer, path: Path, shapes: Shapes) -> None:
    """Raise unless every key is about layers that the transformer has, and every layer has both of its matrices;
    diffusers would pass over some of the others in silence."""
    kind, known = type(transformer).__name__, _linears(transformer)
    strangers = sorted(key for key in shapes if not known.keys() >= set(names.layers(kind, key) or [_layer(key)]))
    if strangers:
        raise AdapterNotFound(
            f"The adapter {path} was made for another base: {len(strangers)} of its {len(shapes)} weights have no place"
            f" in this one, {strangers[0]} among them. Use the base that it was trained on."
        )
    for layer, found in names.grouped(shapes).items():
        if missing := {"A", "B"} - found.keys():
            raise AdapterNotFound(
                f"The adapter {path} is incomplete: {layer} has no matrix {min(missing)}. Copy it again."
            )
        if found["A"][:1] != found["B"][1:]:
            raise AdapterNotFound(f"The adapter {path} is broken: the two matrices of {layer} are of different ranks.")


def check_widths(transformer: Transformer, path: Path, shapes: Shapes) -> None:
    """Raise unless every matrix under our names is as wide as its layer."""
    known = _linears(transformer)
    for key, shape in shapes.items():
        layer, _, matrix = key.partition(MARK)
        side = 1 if matrix.startswith("A") else 0
        width = getattr(known[layer], ("out_features", "in_features")[side])
        if len(shape) == 2 and shape[side] != width:
            raise AdapterNotFound(
                f"The adapter {path} does not fit this base: {layer} is {width} wide here, and {shape[side]} in the"
                " adapter. Use the base that it was trained on."
            )


def _linears(transformer: Transformer) -> dict[str, Any]:
    """Every layer that can have a LoRA by its name, whether it wears some or not."""
    modules = {name.replace(".base_layer", ""): module for name, module in transformer.named_modules()}
    return {name: module for name, module in modules.items() if hasattr(module, "out_features")}


def _layer(key: str) -> str:
    return key.removeprefix(f"{PREFIX}.").partition(MARK)[0]


def first_line(error: Exception) -> str:
    """What an error of other people's code says at its beginning."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2])
