"""`edit-transfer embed`."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(embed)


def embed(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the edit is, in words.")],
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where the embeddings go: a .safetensors file.")],
    base: Annotated[
        str,
        typer.Option(metavar="FOLDER|ID", help="Pretrained base whose text encoder is used, with its text encoder."),
    ],
) -> None:
    """Turn a text into prompt embeddings, for `apply --prompt` and the column `prompt` of a table.

    The text encoder is loaded for this alone; jobs and the endpoint never need it. Without --prompt an edit is told
    by its pairs only, which is the default and what adapters are trained with.
    """
    from rich.console import Console

    from infra.errors import OutputError, UsageError
    from pipelines.transfer import prompts

    if output.suffix != ".safetensors":
        raise UsageError(f"{output} is no .safetensors file. Name one, such as prompt.safetensors.")
    from safetensors.torch import save_file

    with Console(stderr=True).status("Loading the text encoder"):
        tensors = prompts.embed(base, text)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, output, {"text": text, "base": Path(base).name})
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}. Choose another place.") from None
    tokens = tensors[prompts.TOKENS]
    typer.echo(
        f"{output}: {tokens.shape[1]} tokens of {tokens.shape[2]} channels. Use it with apply --prompt {output}."
    )
