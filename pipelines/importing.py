"""`edit-transfer adapters import`: a LoRA that somebody else trained becomes a version in the registry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from infra.registry.cli import Json, Registry, address


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A LoRA as diffusers, ai-toolkit or kohya save it, .safetensors.")
    ],
    name: Annotated[str, typer.Option(help="Name of the adapter in the registry.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|ID", help="Base that it was trained on. Default: EDIT_TRANSFER_BASE or bundled."),
    ] = None,
    attention: Annotated[
        str, typer.Option(help="Attention that it was trained with: `prefix`, `joint`, or `full` as stock LoRAs are.")
    ] = "full",
    compact: Annotated[
        int,
        typer.Option(
            metavar="K", min=1, max=8, help="It was trained with pairs of 1/K of the side, a K*K-th of the tokens."
        ),
    ] = 1,
    prompt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The text that goes with it, as `edit-transfer embed` wrote it."),
    ] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Publish a LoRA from a file.

    It is checked against the base and written anew in the plain format of diffusers, its alpha included. One that
    changes the text encoder too is refused: texts are embedded apart from edits. It has no pairs of its own: show the
    edit with --pair when you apply it.
    """
    import json
    from typing import get_args

    from infra import registry as registries
    from infra.errors import UsageError
    from infra.registry.layout import CARD, PROMPT, WEIGHTS
    from infra.settings import from_environment
    from pipelines import texts
    from pipelines.transfer import bases, loading, lorafile
    from pipelines.transfer.layout import Attention

    if attention not in get_args(Attention):
        raise UsageError(f"--attention can be {' or '.join(get_args(Attention))}, not {attention}.")
    folder = bases.find_base(base or from_environment().base)
    with tempfile.TemporaryDirectory() as scratch:
        plain, rank = lorafile.rewritten(loading.skeleton(folder), file, Path(scratch))
        weights = plain.read_bytes()
    told = {"name": base or folder.name, "revision": bases.revision_of(folder), "class": bases.class_of(folder)}
    about = {"base": told, "attention": attention, "rank": rank, "edits": [], "pairs": [], "exemplars": []}
    if compact > 1:
        about["compact"] = compact
    card = f"# {name}\n\nImported from `{file.name}`, for the base `{told['name']}`. Its training is not known here.\n"
    files = {WEIGHTS: weights, CARD: card.encode()} | ({PROMPT: texts.checked_file(prompt, folder)} if prompt else {})
    version = registries.publish(address(registry), name, files, about)
    outcome = {"name": version.name, "version": version.number, "digest": version.digest, "uri": version.uri}
    typer.echo(json.dumps(outcome) if as_json else f"published {version.ref}")
