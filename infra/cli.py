"""The command `edit-transfer`. Sub-commands live with their package: a `cli.py` with `register(app)`."""

import importlib
import logging
import signal
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infra import threads
from infra.errors import EXIT_INTERRUPTED, EditTransferError

SUB_COMMANDS = (
    "pipelines.catalog.cli",
    "pipelines.catalog.submit",
    "pipelines.catalog.publish",
    "pipelines.embedding",
    "pipelines.twinning",
    "infra.jobs.cli",
    "infra.registry.cli",
    "training.cli",
    "serving.cli",
    "serving.access.cli",
)

TALKATIVE = ("torchao", "torch.utils._pytree", "diffusers.quantizers")  # as torchao is imported, in what a command says


class Sentences(TyperGroup):
    """Turns an expected error into one sentence on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EditTransferError as error:
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.secho("Stopped. Run the same command again to go on.", fg="yellow", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="edit-transfer",
    cls=Sentences,
    help="Show one before/after pair, and a whole catalog is edited the same way.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edit-transfer {version('edit-transfer')}")
        raise typer.Exit()


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Show one before/after pair, and a whole catalog is edited the same way."""


for module in SUB_COMMANDS:
    importlib.import_module(module).register(app)


def main() -> None:
    """Run the command line, and exit with its code. SIGTERM stops a command as Ctrl-C does."""
    threads.wait_asleep()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for talkative in TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.ERROR)
    app()
