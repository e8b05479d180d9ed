"""Files of LoRAs: read without their numbers, and checked against a base."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from safetensors import SafetensorError, safe_open

from infra.errors import AdapterNotFound
from pipelines.transfer import lycoris, names, peftfile
from pipelines.transfer.tuning import MARK

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
    from torch import Tensor

    Transformer: TypeAlias = Flux2Transformer2DModel | FluxTransformer2DModel

PREFIX = "transformer"  # of keys that a pipeline wrote; those a model wrote have none
TEXT_ENCODER = ("text_encoder", "lora_te", "lycoris_te")  # how keys begin that are not for the transformer
SETTINGS = "lora_adapter_metadata"  # under which diffusers keeps the settings of PEFT in a file
PICKLED = (b"PK\x03\x04", b"\x80\x02")  # how files begin that torch.save wrote
FLOATING = ("F16", "F32", "F64", "BF16", "F8_E4M3", "F8_E5M2")  # types of weights, as safetensors calls them
PART = re.compile(r"\.(?:lora|lokr|hada)_")  # how that begins which follows a layer's name

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
    """What a file says of its LoRA, LoKr or LoHa. Raises AdapterNotFound if it holds none, or one that would be worn in
    part only."""
    _check_format(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            shapes = {key: tuple(each.get_shape()) for key, each in slices.items()}
            types = {key: each.get_dtype() for key, each in slices.items() if not key.endswith(".alpha")}
            outline = Outline(shapes, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AdapterNotFound(f"The adapter {path} is broken ({error}). Copy it again.") from error
    _check_content(path, shapes)
    if odd := next((key for key in types if not types[key].startswith(FLOATING)), None):
        raise AdapterNotFound(f"The adapter {path} is broken: {odd} is of type {types[odd]}. Save it as bfloat16.")
    return outline


def _check_format(path: Path) -> None:
    pickled = path.suffix in peftfile.PICKLES
    if path.suffix == ".safetensors":
        try:
            with path.open("rb") as file:
                pickled = file.read(4).startswith(PICKLED)
        except OSError as error:
            raise AdapterNotFound(f"The adapter {path} cannot be read ({error.strerror}).") from error
    elif not pickled:
        raise AdapterNotFound(f"The adapter {path} is no .safetensors file. Save the LoRA as safetensors.")
    if pickled:
        raise AdapterNotFound(
            f"The adapter {path} is a pickle of PyTorch, which can run any code when it is read, and is not read here."
            " If you trust it, convert it: safetensors.torch.save_file(torch.load(FILE, weights_only=True),"
            " 'adapter_model.safetensors')."
        )


def _check_content(path: Path, shapes: Shapes) -> None:
    """Raise for what diffusers would wear a part of, in silence, and for what is no LoRA."""
    if strangers := [key for key in shapes if key.startswith(TEXT_ENCODER)]:
        raise AdapterNotFound(
            f"The adapter {path} changes the text encoder too ({len(strangers)} of its {len(shapes)} weights), which"
            " takes no part in an edit here. Train it on the transformer alone."
        )
    if any("dora_scale" in key for key in shapes):
        raise AdapterNotFound(f"The adapter {path} is a DoRA, which diffusers would wear as if it were none.")
    if other := lycoris.kind_of(shapes):
        raise AdapterNotFound(
            f"The adapter {path} is no LoRA alone: it holds {other.name} ({other.weights} of its {len(shapes)} weights,"
            f" {other.key} among them), {other.why}. LoRA, LoKr and LoHa can be taken in."
        )
    if not any(MARK in key or lycoris.product_of(key) for key in shapes):
        raise AdapterNotFound(f"The file {path} holds no LoRA. Give one that diffusers, ai-toolkit or kohya saved.")


def prefixed(keys: Iterable[str]) -> bool:
    """Whether a pipeline wrote these keys."""
    return all(key.startswith(f"{PREFIX}.") for key in keys)


def bare(entries: dict[str, T]) -> dict[str, T]:
    """Keys as a model writes them."""
    return {key.removeprefix(f"{PREFIX}."): entry for key, entry in entries.items()} if prefixed(entries) else entries


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise unless all weights are numbers. A sum tells in one pass; what it makes suspicious is looked at."""
    for key, weight in weights.items():
        if not weight.is_floating_point():
            raise AdapterNotFound(
                f"The adapter {path} is broken: {key} is of type {weight.dtype}. Save it as bfloat16."
            )
        if not math.isfinite(weight.sum()) and not bool(weight.isfinite().all()):
            raise AdapterNotFound(
                f"The adapter {path} is broken: {_layer(key)} has weights that are no numbers (NaN or infinite), with"
                " which every result would be black. Take an earlier checkpoint of its training."
            )


def settings_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings of PEFT that diffusers keeps in the metadata of a LoRA's file, without prefix; empty if it has none.

    Raises:
        AdapterNotFound: they are broken.
    """
    try:
        told = json.loads(metadata.get(SETTINGS, "{}"))
        settings = {
            key.removeprefix(f"{PREFIX}."): value for key, value in told.items() if not key.startswith(TEXT_ENCODER)
        }
        peftfile.check_strengths(settings)
        return settings
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
    try:
        layers = names.grouped(shapes)
    except ValueError as error:
        raise AdapterNotFound(f"The adapter {path} is broken: {error}.") from error
    for layer, found in layers.items():
        if found.keys() - {"A", "B", "alpha"}:
            continue  # a product of LyCORIS, checked when it is multiplied
        if missing := {"A", "B"} - found.keys():
            raise AdapterNotFound(
                f"The adapter {path} is incomplete: {layer} has no matrix {min(missing)}. Copy it again."
            )
        if {len(found["A"]), len(found["B"])} != {2}:
            raise AdapterNotFound(f"The adapter {path} is broken: {layer} has no matrices of one rank.")
        if found["A"][:1] != found["B"][1:]:
            raise AdapterNotFound(f"The adapter {path} is broken: the two matrices of {layer} are of different ranks.")
        if 0 in (*found["A"], *found["B"]):
            raise AdapterNotFound(f"The adapter {path} is broken: a matrix of {layer} is empty.")


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
    return PART.split(key.removeprefix(f"{PREFIX}."))[0]


def first_line(error: Exception) -> str:
    """What an error of other people's code says at its beginning."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2])
