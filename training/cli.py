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


OTHERS = "Any system"


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
        typer.Option(
            help="What is held out: `seen`, `objects` (default), `busy`, `renderer`, `parameters` or `all`; may be"
            " repeated."
        ),
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this edit family; may be repeated.")] = None,
    cases: Annotated[
        int | None, typer.Option(min=1, help="Cases per family and split: 32, or what the benchmark has.")
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="Denoising steps, the base's own by default; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the cases, 0 by default.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of a panel in pixels; by default what the base takes, 512 at most.")
    ] = None,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`.")] = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Share the work on a CPU, one core each, all cores by default. Scores stay the same."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the first cases to this PNG.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write tables and contact sheets to this HTML page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="The tables of a model card on stdout, in Markdown.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Score nothing: write the cases to a new folder, as PNG with a table and a dataset card.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Take the cases from a folder that --export wrote.", rich_help_panel=OTHERS),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Score pictures that any system made of the --benchmark: `CASE.png` with the right pair and, if you"
            " like, `CASE.wrong.png` with the wrong one; the card there says more.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Score what --results has, even if not all is there.", rich_help_panel=OTHERS),
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Score what needs no model: `copy` (the query as it is), `blind` (the mean of other edits), `oracle`"
            " (the luckiest other edit), `perfect` (what each pair shows).",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call what is scored.", rich_help_panel=OTHERS)
    ] = None,
    save_results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the results in a new folder, as --results takes them; of several --steps the first.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    **tuned: Any,
) -> None:
    """Measure how well edits are read off a pair, on rendered scenes with exact ground truth.

    Every query is edited twice: with the **right** pair, and with a **wrong** one that shows the same kind of edit
    with other parameters. A base that reads the pair scores higher with the right one.

    `--export` writes the cases for other systems, and `--results` scores what those make of them.
    """
    from training.evaluation import run
    from training.evaluation.asked import Asked

    asked = Asked(
        base=base,
        adapter=adapter,
        suite=suite,
        splits=tuple(split or ()),
        families=tuple(family or ()),
        cases=cases,
        steps=tuple(dict.fromkeys(steps or ())),
        seed=seed,
        size=size,
        device=device,
        processes=processes,
        as_json=as_json,
        as_markdown=as_markdown,
        export=export,
        benchmark=benchmark,
        results=results,
        partial=partial,
        baseline=baseline,
        system=system,
        save_results=save_results,
        tuned=tuning.options(**tuned),
    )
    run.make_room(sheet, report)
    if export:
        run.write_benchmark(export, asked.source().sized(), processes)
        return
    saver, subject = asked.saver(), asked.subject(lambda note: typer.echo(note, err=True))
    outcome, collected = run.measure(subject, saver)
    run.tell(outcome, collected, sheet=sheet, report=report, form=asked.form)
