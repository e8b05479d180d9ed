"""Commands about how well bases and adapters do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.options import with_options_of
from pipelines import tuning
from training.fit.cli import retrain, train
from training.pairs.cli import pairs_app


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command(rich_help_panel="Measure")(evaluate)
    app.command(rich_help_panel="Train")(train)
    app.command(rich_help_panel="Train")(retrain)
    app.add_typer(pairs_app, name="pairs", rich_help_panel="Train")


@with_options_of(tuning.options)
def evaluate(
    base: Annotated[str | None, typer.Option(help="Diffusers folder or Hub id; the bundled base by default.")] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="REF|FILE", help="An adapter: a registry ref, or a .safetensors file."),
    ] = None,
    suite: Annotated[str, typer.Option(help="Which benchmark; so far only `scenes`.")] = "scenes",
    split: Annotated[
        list[str] | None,
        typer.Option(help="What is held out: `seen`, `objects` (default), `parameters` or `all`; may be repeated."),
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this edit family; may be repeated.")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases per family and split.")] = 32,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="Denoising steps, the base's own by default; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the cases.")] = 0,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of a panel in pixels; by default what the base takes, 512 at most.")
    ] = None,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`.")] = "cpu",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the first cases to this PNG.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write tables and contact sheets to this HTML page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")] = False,
    **tuned: Any,
) -> None:
    """Measure how well edits are read off a pair, on rendered scenes with exact ground truth.

    Every query is edited twice: with the **right** pair, and with a **wrong** one that shows the same kind of edit
    with other parameters. A base that reads the pair scores higher with the right one.
    """
    from infra.errors import UsageError
    from training.evaluation import run
    from training.evaluation.plan import SPLITS, Plan
    from training.scenes import EVERY_FAMILY

    if suite != "scenes":
        raise UsageError(f"There is no suite {suite}. Use --suite scenes.")
    splits = SPLITS if "all" in (split or ()) else split or ("objects",)
    plan = Plan(
        splits=tuple(dict.fromkeys(splits)),
        families=tuple(dict.fromkeys(family or EVERY_FAMILY)),
        cases=cases,
        steps=tuple(dict.fromkeys(steps or ())),
        seed=seed,
        size=size,
    )
    run.make_room(sheet, report)
    editor = run.load_editor(base, adapter, device, tuning.options(**tuned))
    outcome, collected = run.measure(editor, plan, adapter)
    run.tell(outcome, collected, sheet=sheet, report=report, as_json=as_json)
