"""`edit-transfer embed`."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(embed)


def embed(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the edit is, in words.")],
    base: Annotated[
        str,
        typer.Option(metavar="FOLDER|ID", help="Pretrained base whose text encoder is used, with its text encoder."),
    ],
    output: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where the embeddings go: a .safetensors file.")
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(
            min=1,
            help="How strongly the text counts: above 1 every step is done twice. For bases that are not distilled;"
            " FLUX.2 klein-base is made for about 4.",
        ),
    ] = 1.0,
    negative: Annotated[
        str, typer.Option(metavar="TEXT", help="With --guidance: what results are led away from. Default: no words.")
    ] = "",
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Instead of FILE: keep it in the base's folder, as the text the base is used with."
        ),
    ] = False,
) -> None:
    """Turn a text into prompt embeddings, for `apply --prompt` and the column `prompt` of a table.

    The text encoder is loaded for this alone; jobs and the endpoint never need it. Without --prompt an edit has the
    text of its adapter, else that of its base, and mostly there is none: then its pairs alone tell it.
    """
    from rich.console import Console
    from safetensors.torch import save

    from infra import store as stores
    from infra.errors import OutputError, StoreError, UsageError
    from pipelines.transfer import bases, prompts

    place = _place(output, base, store)
    folder = Path(base) if Path(base).is_dir() else bases.find_base(base, weights=False)
    if guidance > 1 and bases.is_distilled(folder):
        raise UsageError(f"{base} is distilled: its texts guide it by themselves. Leave out --guidance.")
    if negative and guidance == 1:
        raise UsageError("--negative only counts with --guidance, such as --guidance 4.")
    with Console(stderr=True).status("Loading the text encoder"):
        tensors = prompts.embed(base, text, guidance=guidance, negative=negative)
    try:
        stores.write(str(place), save(tensors, {"text": text, "base": Path(base).name}))
    except StoreError as error:
        raise OutputError(f"The embeddings cannot be written: {error} Choose another place.") from None
    tokens = tensors[prompts.TOKENS]
    use = f"{Path(base).name} is used with it from now on" if store else f"Use it with apply --prompt {place}"
    typer.echo(f"{place}: {tokens.shape[1]} tokens of {tokens.shape[2]} channels. {use}.")


def _place(output: Path | None, base: str, store: bool) -> Path:
    """Where the embeddings go. Raises UsageError."""
    from infra.errors import UsageError
    from pipelines.transfer.bases import PROMPT

    if store == (output is not None):
        raise UsageError("Give a FILE for the embeddings, or --store to keep them in the base's folder: one of both.")
    if output is None:
        if not Path(base).is_dir():
            raise UsageError(f"{base} is no folder here: --store needs one. Give a FILE instead.")
        return Path(base) / PROMPT
    if output.suffix != ".safetensors":
        raise UsageError(f"{output} is no .safetensors file. Name one, such as prompt.safetensors.")
    return output
