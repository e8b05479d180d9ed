"""`edit-transfer publish` and `edit-transfer revert`: what becomes of the results of a staged job."""

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.catalog.moving import Published, Reverted

PANEL = "Staged jobs"

Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The folder of a job that ran with `apply --stage`, or, with --output, only its last part.",
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="DIR", help="The output folder of the job, if JOB is no address.")
]
Json = Annotated[bool, typer.Option("--json", help="The outcome as one JSON object on stdout.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("publish", rich_help_panel=PANEL)(publish)
    app.command("revert", rich_help_panel=PANEL)(revert)


def publish(
    job: Job,
    output: Output = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Publish what is done, although the job has not finished.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the results of a staged job in place; what lay there is kept for `revert`.

    Run it again after a stop: it goes on. Images that failed keep what they had.
    Exit codes: 0 all in place, 3 some staged results are gone, 2 nothing was started, 5 somebody else is at it,
    1 it broke.
    """
    from rich.console import Console

    from pipelines.catalog import moving, publication

    asides = Console(stderr=True)
    told = moving.publish(publication.find(job, output), asides, partial)
    _show(told, as_json)
    if told.missing:
        asides.print("The missing results can be made again: apply --stage --fresh.", style="dim", highlight=False)
        raise typer.Exit(EXIT_SOME_FAILED)


def revert(job: Job, output: Output = None, as_json: Json = False) -> None:
    """Take away what `publish` put in place, and put back what was there before.

    What a later job has edited since is left alone; revert that job first.
    Exit codes: 0 reverted, 3 what was kept of some images is gone, 2 nothing was started, 5 somebody else is at it,
    1 it broke.
    """
    from rich.console import Console

    from pipelines.catalog import moving, publication

    told = moving.revert(publication.find(job, output), Console(stderr=True))
    _show(told, as_json)
    if told.missing:
        raise typer.Exit(EXIT_SOME_FAILED)


def show_next(console: "Console", folder: str) -> None:
    """How to go on after a staged job, as one line."""
    line = f"To put the results in place: edit-transfer publish {shlex.quote(folder)}"
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _show(told: "Published | Reverted", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(told)))
        return
    for name, value in asdict(told).items():
        if value or name in ("published", "reverted"):
            typer.echo(f"{name.replace('_', ' '):<18}{value}")
