"""Options of `apply` that depend on `--plan`, and those that do without them only there."""

from typing import Annotated

import typer

from infra.errors import UsageError
from pipelines.tuning import PANEL


def needed(context: typer.Context, option: typer.CallbackParam, value: str) -> str:
    """A value that must be given, unless only a plan is asked for."""
    if not value and not context.params.get("plan"):
        context.fail(f"Missing option '{option.opts[0]}'.")
    return value


def _for_plan(context: typer.Context, value: list[float] | None) -> list[float] | None:
    if value and not context.params.get("plan"):
        raise UsageError("--memory says for which GPUs to plan: it goes with --plan.")
    return value


Planned = Annotated[
    bool,
    typer.Option(
        "--plan",
        is_eager=True,  # others ask for it
        help="Tell in which ways the base fits the GPU at hand, and what to take; edit nothing, load no weights."
        " Needs neither --input nor --output.",
        rich_help_panel=PANEL,
    ),
]
Memory = Annotated[
    list[float] | None,
    typer.Option(
        metavar="GB",
        min=1,
        callback=_for_plan,
        help="Plan for a GPU of so much memory instead. Give it again for more. Default without a GPU: 24, 40 and 80.",
        rich_help_panel=PANEL,
    ),
]
