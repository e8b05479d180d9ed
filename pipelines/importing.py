"""`edit-transfer adapters import`: a LoRA that somebody else trained becomes a version in the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.registry.cli import Json, Registry, address

if TYPE_CHECKING:
    from pipelines.pairs.check import Pair
    from pipelines.transfer.rewriting import Rewritten


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="A LoRA, LoKr or LoHa as diffusers, ai-toolkit, kohya or LyCORIS save it, .safetensors; or the folder"
            " that PEFT saved.",
        ),
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
    rank: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Make a LoKr or LoHa a LoRA of this rank at most, as near to it as can be; how far off is told."
            " Default: the very same, which can be of rank 256 at most.",
        ),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="BEFORE AFTER",
            help="Two images that show its edit, kept with it and shown by default. Give it again for more pairs.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|TABLE",
            help="Pairs to keep with it, as `train` takes them. Without --pair the first is shown by default.",
        ),
    ] = None,
    align: Annotated[
        bool,
        typer.Option(
            "--align", help="Mend pairs whose after image is shifted, zoomed or turned against its before image."
        ),
    ] = False,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Publish a LoRA from a file.

    It is checked against the base and written anew in the plain format of diffusers, its alpha included. One that
    changes the text encoder too is refused: texts are embedded apart from edits. With --pair or --pairs it shows its
    edit itself, in jobs and to clients of the endpoint that send no pair; without, give --pair when you apply it.
    """
    import json
    from typing import get_args

    from infra import registry as registries
    from infra.errors import UsageError
    from infra.registry.layout import CARD, PROMPT, WEIGHTS
    from infra.settings import from_environment
    from pipelines import texts
    from pipelines.pairs.stored import SHOWN, pair_files
    from pipelines.transfer import bases, loading, rewriting
    from pipelines.transfer.layout import Attention

    if attention not in get_args(Attention):
        raise UsageError(f"--attention can be {' or '.join(get_args(Attention))}, not {attention}.")
    settings = from_environment()
    folder = bases.find_base(base or settings.base)
    shown, others = _pairs((pair or [])[::2], (pair or [])[1::2], pairs, settings.max_pixels, align)
    told, files = pair_files((each, SHOWN) for each in (*shown, *others))
    with tempfile.TemporaryDirectory() as scratch:
        rewritten = rewriting.rewritten(loading.skeleton(folder), file, Path(scratch), rank)
        files[WEIGHTS] = rewritten.path.read_bytes()
    about = {
        "base": {
            "name": base or folder.name,
            "revision": bases.revision_of(folder),
            "class": bases.class_of(folder),
        },
        "attention": attention,
        "rank": rewritten.rank,
        "edits": sorted({each["edit"] for each in told}),
        "pairs": told,
        "exemplars": [each["name"] for each in told[: len(shown)]],
    }
    if compact > 1:
        about["compact"] = compact
    if rewritten.losses:
        about["approximation"] = _approximation(rewritten)
    files[CARD] = _card(name, file.absolute().name, about).encode()
    if prompt:
        files[PROMPT] = texts.checked_file(prompt, folder)
    version = registries.publish(address(registry), name, files, about)
    outcome = {"name": version.name, "version": version.number, "digest": version.digest, "uri": version.uri}
    if rewritten.losses:
        outcome["approximation"] = about["approximation"]
    typer.echo(json.dumps(outcome) if as_json else _sentence(version.ref, about))


def _pairs(
    befores: Sequence[str], afters: Sequence[str], source: str | None, max_pixels: int, align: bool
) -> tuple[list[Pair], list[Pair]]:
    """The pairs that are shown by default, and the others. What cannot be used of a source is told and left out, and
    so is how pairs were mended, or should be.

    Raises:
        PairError: a pair that was given by itself cannot be used, or there is none in the source.
        StoreError: a place does not answer.
    """
    if not befores and not source:
        return [], []
    from infra.errors import PairError
    from pipelines.pairs.check import check_found, usable
    from pipelines.pairs.source import find_pairs, found_at

    given = [found_at(before, after) for before, after in zip(befores, afters, strict=True)]
    checked = check_found([*given, *(find_pairs(source) if source else ())], max_pixels, align)
    for number, each in enumerate(checked):
        if each.pair is None and number < len(given):
            raise PairError(f"The pair {each.name} cannot be used: {each.reason}")
        if each.pair is None:
            typer.echo(f"left out: {each.name}: {each.reason}", err=True)
        elif each.note:
            typer.echo(f"{each.name}: {each.note}", err=True)
    good = usable(checked, source or "--pair")
    alone = len({each.edit for each in good}) == 1
    count = len(given) or int(alone)
    return good[:count], good[count:]


def _approximation(rewritten: Rewritten) -> dict[str, Any]:
    """How far the LoRA is from the adapter that it was made of: relative Frobenius errors, 0 to 1."""
    worst = max(rewritten.losses, key=lambda loss: loss.error)
    return {"error": rewritten.error, "worst_layer": worst.layer, "worst_error": worst.error}


def _sentence(ref: str, about: dict[str, Any]) -> str:
    far = about.get("approximation")
    return f"published {ref}, {_far_off(far)}" if far else f"published {ref}"


def _far_off(far: dict[str, Any]) -> str:
    if not far["error"]:
        return "which is all of the adapter it was made of"
    return (
        f"which leaves out {far['error']:.1%} of the adapter it was made of (relative Frobenius error), and"
        f" {far['worst_error']:.1%} in {far['worst_layer']}, the worst of its layers"
    )


def _card(name: str, file: str, about: dict[str, Any]) -> str:
    lines = [f"# {name}", ""]
    lines += [f"Imported from `{file}`, for the base `{about['base']['name']}`. Its training is not known here."]
    if far := about.get("approximation"):
        lines += ["", f"It is a LoRA of rank {about['rank']} at most, {_far_off(far)}."]
    if about["pairs"]:
        lines += ["", "Pairs that came with the import; whether it was trained on them is not known here.", ""]
        lines += ["| pair | shown by default | before | after |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {pair['name']} | {'yes' if pair['name'] in about['exemplars'] else ''} | ![before]({pair['before']})"
            f" | ![after]({pair['after']}) |"
            for pair in about["pairs"]
        ]
    return "\n".join(lines) + "\n"
