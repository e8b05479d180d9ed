"""One run of the benchmark: measured, and told as people want it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from infra.errors import OutputError
from training.evaluation import export, markdown
from training.evaluation import report as page
from training.evaluation.outcome import Outcome
from training.evaluation.plan import Ask, Plan
from training.evaluation.processes import cores
from training.evaluation.results import Saver
from training.evaluation.screen import Meter, show_tables
from training.evaluation.sheet import Sheet
from training.evaluation.subject import Subject
from training.evaluation.suite import Shown, evaluate

Form = Literal["tables", "json", "markdown"]


def make_room(*files: Path | None) -> None:
    """Make the folders of files to come, before minutes are spent; raises `OutputError`."""
    for file in filter(None, files):
        if file.is_dir() or file.suffix not in (".png", ".html"):
            raise OutputError(
                f"{file} cannot be written: give the name of a .png for the sheet, of a .html for the report."
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror}. Give another place.") from error


def measure(subject: Subject, saver: Saver | None = None) -> tuple[Outcome, Sheet]:
    """Run a plan, with progress on stderr; `saver` keeps the results."""
    started, sheet, rows = time.monotonic(), Sheet(), []
    processes = subject.processes
    with Meter("Scoring", subject.plan, Console(stderr=True)) as meter:

        def shown(case: Shown) -> None:
            sheet.add(case)
            meter.add(case.split, case.family)
            if saver:
                saver.add(case)

        for row in evaluate(subject.system, subject.cases, subject.plan, shown, processes):
            meter.tell(row)
            rows.append(row)
    return Outcome.of(subject, rows, processes, time.monotonic() - started), sheet


def write_benchmark(folder: Path, plan: Plan, processes: int | None) -> None:
    """Export the cases of a plan that has a size, with progress on stderr; raises as `export` does."""
    with Meter("Writing", plan, Console(stderr=True)) as meter:

        def exported(ask: Ask) -> None:
            meter.add(ask.split, ask.family, ask.queries)

        export.export(folder, plan, processes or cores(), exported)


def tell(
    outcome: Outcome, collected: Sheet, *, sheet: Path | None = None, report: Path | None = None, form: Form = "tables"
) -> None:
    """Write the files that were asked for; the numbers go to stdout."""
    if sheet:
        collected.save(sheet)
    if report:
        page.write(report, outcome, collected)
    if form == "json":
        typer.echo(outcome.to_json())
    elif form == "markdown":
        typer.echo(markdown.written(outcome))
    else:
        show_tables(Console(), outcome)
