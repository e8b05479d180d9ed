"""Commands about how well bases and adapters do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.evaluation import FamilyScores


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command(rich_help_panel="Measure")(evaluate)


def evaluate(
    base: Annotated[str | None, typer.Option(help="Diffusers folder or Hub id; the bundled base by default.")] = None,
    suite: Annotated[str, typer.Option(help="Which benchmark; so far only `scenes`.")] = "scenes",
    family: Annotated[list[str] | None, typer.Option(help="Only this edit family; may be repeated.")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases per family.")] = 32,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; the base's own by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the cases.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the first cases to this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")] = False,
) -> None:
    """Measure how well edits are read off a pair, on rendered scenes with exact ground truth.

    Every query is edited twice: with the **right** pair, and with a **wrong** one that shows the same kind of edit
    with other parameters. A base that reads the pair scores higher with the right one.
    """
    from infra.errors import UsageError
    from pipelines.transfer import Editor
    from training.evaluation import evaluate_scenes
    from training.evaluation.sheet import Sheet
    from training.scenes import FAMILIES

    if suite != "scenes":
        raise UsageError(f"There is no suite {suite}. Use --suite scenes.")
    unknown = set(family or ()) - set(FAMILIES)
    if unknown:
        raise UsageError(f"There is no edit family {', '.join(sorted(unknown))}. Known: {', '.join(FAMILIES)}.")
    started = time.monotonic()
    editor = Editor.load(base)
    collected = Sheet()
    scores = {}
    for name, row in evaluate_scenes(editor, cases=cases, steps=steps, seed=seed, families=family, shown=collected.add):
        typer.echo(f"{name}: right {row.right:.1f} dB, wrong {row.wrong:.1f} dB", err=True)
        scores[name] = row
    if sheet:
        collected.save(sheet)
    if as_json:
        typer.echo(_as_json(editor.base, editor.revision, steps or editor.default_steps, seed, scores, started))
    else:
        _show_table(scores.items())


def _as_json(base: str, revision: str, steps: int, seed: int, scores: dict[str, FamilyScores], started: float) -> str:
    return json.dumps(
        {
            "suite": "scenes",
            "base": base,
            "base_revision": revision,
            "steps": steps,
            "seed": seed,
            "seconds": round(time.monotonic() - started, 1),
            "families": {name: {k: round(v, 3) for k, v in vars(row).items()} for name, row in scores.items()},
        },
        indent=2,
    )


def _show_table(scores: Iterable[tuple[str, FamilyScores]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Edits read off one pair: held-out objects and parameters, PSNR in dB")
    for column in (
        "family",
        "right pair",
        "wrong pair",
        "margin",
        "copy",
        "changed",
        "rest",
        "recovered",
        "chance",
    ):
        table.add_column(column, justify="left" if column == "family" else "right")
    for name, row in scores:
        decibels = (row.right, row.wrong, row.margin, row.copy, row.changed, row.rest)
        table.add_row(name, *(f"{value:.1f}" for value in decibels), f"{row.recovered:.0%}", f"{row.chance:.0%}")
    Console().print(table)
