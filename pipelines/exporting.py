"""`edit-transfer adapters export`: a version of the registry becomes files, for diffusers and for other tools."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.registry.cli import Json, Ref, Registry, address

if TYPE_CHECKING:
    from infra.registry import Version


class Format(StrEnum):
    """Whose names of layers the exported weights have."""

    diffusers = "diffusers"
    ai_toolkit = "ai-toolkit"


def export(
    ref: Ref,
    target: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A .safetensors file for the weights alone, or a folder for all.")
    ],
    wanted: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Names of the layers: `diffusers`, or `ai-toolkit` for a FILE that ai-toolkit and ComfyUI take.",
        ),
    ] = Format.diffusers,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Copy a version's weights, card and pairs out of the registry, checked.

    The weights load in plain diffusers: `pipe.load_lora_weights("DIR", weight_name="adapter.safetensors")`.
    """
    from infra import registry as registries
    from infra import store
    from infra.errors import UsageError
    from infra.registry.layout import WEIGHTS

    alone = target.suffix == ".safetensors"
    if wanted is Format.ai_toolkit and not alone:
        raise UsageError(f"--format ai-toolkit gives one file: {target / 'NAME.safetensors'}, for example.")
    version = registries.resolve(address(registry), ref)
    written = [target] if alone else [target / path for path in version.files]
    there = next((path for path in written if path.exists()), None)
    if there and not force:
        raise UsageError(f"{there} is there already; give --force to write over it.")
    if alone:
        weights = registries.read_file(version, WEIGHTS)
        store.write(str(target), _for_ai_toolkit(version, weights) if wanted is Format.ai_toolkit else weights)
    else:
        registries.fetch(version, target)
    told = {"ref": version.ref, "digest": version.digest, "files": [str(path) for path in written]}
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else f"{version.ref} is in {target}.")


def _for_ai_toolkit(version: Version, weights: bytes) -> bytes:
    """The same LoRA under other names. Raises UsageError where that format cannot say it."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    from infra.errors import UsageError
    from pipelines.transfer import conversion, lorafile, names

    kind = version.about["base"].get("class")
    if kind not in names.BFL:
        raise UsageError(f"{version.ref} is for a {kind}; --format ai-toolkit knows {' and '.join(names.BFL)}.")
    try:
        matrices = load(weights)
        length = int.from_bytes(weights[:8], "little")  # of the header, which `load` does not give
        settings = lorafile.settings_in(json.loads(weights[8 : 8 + length]).get("__metadata__", {}))
        return save(conversion.to_ai_toolkit(kind, matrices, settings), {"format": "pt"})
    except (ValueError, TypeError, SafetensorError) as error:  # other content, settings of another PEFT
        raise UsageError(f"{version.ref} cannot be exported for ai-toolkit: {error}.") from error
