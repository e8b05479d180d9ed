"""`edit-transfer apply`. Nothing heavy is imported before a job is really asked for."""

import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from infra.errors import EXIT_SOME_FAILED, UsageError
from infra.options import with_options_of
from infra.registry.cli import adapters_app, address
from pipelines import tuning
from pipelines.catalog.needs import Memory, Planned, needed
from pipelines.exporting import export
from pipelines.importing import import_

if TYPE_CHECKING:
    from pipelines.catalog.job import Glance

ASK_FROM = 1000  # images; fewer are edited without asking

EDIT, CATALOG, RUN, OUTCOME = "The edit", "The catalog", "The run", "What is shown"


class Format(StrEnum):
    """Formats that results can be asked for in."""

    png = "png"
    jpeg = "jpeg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"


class PairCommand(TyperCommand):
    """A command whose `--pair` takes two values each time; Typer's repeatable options take one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_one_value_each(args)))


def _one_value_each(args: Sequence[str]) -> Iterator[str]:
    """`--pair A B` as `--pair A --pair B`."""
    left = iter(args)
    for arg in left:
        yield arg
        if arg.startswith("--pair="):
            raise UsageError("--pair takes two images, without an equals sign: --pair BEFORE AFTER.")
        if arg == "--pair":
            before, after = next(left, None), next(left, None)
            if after is None or before is None or before.startswith("--") or after.startswith("--"):
                raise UsageError("--pair takes two images: --pair BEFORE AFTER.")
            yield from (before, "--pair", after)


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command("apply", cls=PairCommand)(apply)
    adapters_app.command("import", cls=PairCommand)(import_)
    adapters_app.command()(export)


@with_options_of(tuning.options)
def apply(
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="DIR|GLOB|TABLE",
            help="Images to edit: a folder or s3:// prefix, a quoted glob, or a table (Parquet, CSV, JSON lines) with a"
            " column `uri` (and, for rows that want it otherwise, `before` and `after`, `adapter`, `seed`, `prompt`)."
            " Required.",
            callback=needed,
            rich_help_panel=CATALOG,
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Gets images/, manifest/ and report.html. Required.",
            callback=needed,
            rich_help_panel=CATALOG,
        ),
    ] = "",
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="BEFORE AFTER",
            help="Two images that show the edit. Give it again for more pairs.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="REF[:SCALE]",
            help="A trained adapter: NAME, NAME@3, NAME@production. Its own pairs show the edit; --pair adds more."
            " Give it again to stack several, as in --adapter lift --adapter shine:0.7.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option(help="How strongly adapters count: 1 as trained, 0 not at all.", rich_help_panel=EDIT)
    ] = 1.0,
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where adapters are. Default: EDIT_TRANSFER_REGISTRY or ~/.edit-transfer/registry.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="FOLDER|ID",
            help="Pretrained base: a diffusers folder or a Hub id. Default: EDIT_TRANSFER_BASE or bundled.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The edit in words too, as `edit-transfer embed` wrote them. Default: the adapter's, or the base's.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Denoising steps. Default: the base's own.", rich_help_panel=EDIT),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Another number gives another variant of every result.", rich_help_panel=EDIT)
    ] = 0,
    format: Annotated[
        Format | None,
        typer.Option(help="Format of the results. Default: each input's own, JPEG for HEIC.", rich_help_panel=EDIT),
    ] = None,
    restore: Annotated[
        bool,
        typer.Option(
            "--restore",
            help="Results in full resolution: what the edit did not touch stays the input's, pixel for pixel.",
            rich_help_panel=EDIT,
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many images.", rich_help_panel=CATALOG)
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Edit everything again, finished or not.", rich_help_panel=CATALOG)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try images again that failed before.", rich_help_panel=CATALOG),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images are edited by so many processes. Default: GPUs, or cores.",
            rich_help_panel=RUN,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images that go through the model together. Default: 8, and on a GPU as many as its memory takes.",
            rich_help_panel=RUN,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count, look and estimate; write nothing.", rich_help_panel=RUN),
    ] = False,
    stage: Annotated[
        bool,
        typer.Option(
            "--stage",
            help="Leave the results in a folder of their own, until `edit-transfer publish` puts them in place.",
            rich_help_panel=RUN,
        ),
    ] = False,
    queue: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait while another job works in the output folder, instead of ending.", rich_help_panel=RUN
        ),
    ] = False,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            min=0, help="What an hour of one worker costs: the outcome tells the cost.", rich_help_panel=OUTCOME
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help=f"Do not ask before {ASK_FROM} images or more.", rich_help_panel=RUN)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The summary as one JSON object on stdout.", rich_help_panel=OUTCOME),
    ] = False,
    plan: Planned = False,
    memory: Memory = None,
    **tuned: Any,
) -> None:
    """Edit a catalog the way a before/after pair shows, or a trained adapter.

    Run the same command again after a stop or with new images: finished work is not repeated.
    Exit codes: 0 all done, 3 some images failed, 2 nothing was started, 5 another job works in the output folder,
    1 the job broke, 130 stopped.
    """
    from rich.console import Console

    from infra import settings as environment

    settings, console = environment.from_environment(), Console()
    if plan:
        from pipelines.catalog import planning, planning_screen

        fits = planning.plan(base or settings.base, adapter or (), address(registry), batch_size, memory or ())
        _print_json(fits.told()) if as_json else planning_screen.show_plan(console, fits)
        return
    from pipelines.catalog import forecast, job, publish, screen

    options = job.Options(
        pairs=list(zip((pair or [])[::2], (pair or [])[1::2], strict=True)),
        input=source,
        output=output,
        adapters=adapter or (),
        scale=scale,
        registry=address(registry),
        base=base,
        prompt=prompt,
        workers=workers,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        format=format.value if format else None,
        restore=restore,
        limit=limit,
        fresh=fresh,
        retry_failed=retry_failed,
        stage=stage,
        wait=queue,
        price_per_hour=price_per_hour,
        tuned=tuning.options(**tuned),
    )
    asides = Console(stderr=True)
    prepared = job.prepare(options, settings)
    if dry_run:
        with asides.status("Looking at the catalog"):
            expected = forecast.forecast(prepared, options, settings)
        screen.show_passed(asides, expected.passed)
        _print_json(expected.told()) if as_json else screen.show_forecast(console, expected)
        return
    _confirm(prepared.glance, options.output, yes or as_json)
    summary = job.run(prepared, options, settings, asides)
    screen.show_passed(asides, summary.passed)
    _print_json(summary.told()) if as_json else screen.show_summary(console, summary)
    if stage:
        publish.show_next(asides, prepared.output)
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _confirm(glance: "Glance", output: str, sure: bool) -> None:
    """Ask whoever sits at a terminal before many images are edited. Raises UsageError if they say no."""
    many = len(glance.inputs) if glance.tasks is None else len(glance.tasks)
    if sure or many < ASK_FROM or not sys.stdin.isatty():
        return
    told = f"{many:,} images" if glance.tasks is not None else f"a catalog of {ASK_FROM:,} images or more"
    question = f"This edits {told} into {output}; --dry-run tells what that takes. Go on?"
    if not typer.confirm(question, default=True, err=True):
        raise UsageError("Nothing was started.")


def _print_json(outcome: dict[str, Any]) -> None:
    typer.echo(json.dumps(outcome))
