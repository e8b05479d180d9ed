"""What people see of an evaluation on their terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.evaluation.outcome import Outcome, at_steps
from training.evaluation.plan import Plan
from training.evaluation.scores import percent, tenths
from training.evaluation.suite import Row

DECIBELS = ("right", "wrong", "margin", "copy", "oracle", "changed", "rest")


class Meter:
    """Counts finished cases: a bar on a terminal, a line for each family anywhere else. A context manager."""

    def __init__(self, doing: str, plan: Plan, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cases · left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(doing, total=len(plan.runs) * plan.cases)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def add(self, split: str, family: str, cases: int = 1) -> None:
        """Another case is finished."""
        self.bar.update(self.task, advance=cases, description=f"{split}, {family}")

    def tell(self, row: Row) -> None:
        """Another family is finished."""
        if not self.console.is_terminal:
            scores = row.scores
            steps = "" if row.steps is None else f", steps {row.steps}"
            self.console.print(
                f"{row.split}, {row.family}{steps}: right {tenths(scores.right)} dB, "
                f"wrong {tenths(scores.wrong)} dB, recovered {percent(scores.recovered)}",
                highlight=False,
                soft_wrap=True,
            )


def show_tables(console: Console, outcome: Outcome) -> None:
    """A table of scores for each split, or of scores by steps if there are several."""
    counts = outcome.plan.counts
    if len(counts) > 1:
        what, table = "PSNR with the right pair (dB) and share recovered (%), by denoising steps", _by_steps
    else:
        what = ", ".join(filter(None, ("edits read off one pair, PSNR in dB", at_steps(counts[0]))))
        table = _by_scores
    for split in dict.fromkeys(row.split for row in outcome.rows):
        console.print(f"[bold]{split}[/], {escape(outcome.system)}: {what}", highlight=False, soft_wrap=True)
        console.print(table(outcome, [outcome.of_split(split, count) for count in counts]))
    console.print(f"Benchmark version {outcome.benchmark}, cases {outcome.cases_digest}", style="dim", soft_wrap=True)


def _by_scores(outcome: Outcome, columns: list[list[Row]]) -> Table:
    """A line for each family, and a gap between groups."""
    table, rows = _start(), columns[0]
    for column in (*DECIBELS, "recovered\n/ chance"):
        table.add_column(column, justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        decibels = [tenths(getattr(row.scores, column)) for column in DECIBELS]
        recovered = f"{percent(row.scores.recovered)} / {percent(row.scores.chance)}"
        ends_group = after is not None and after.group != row.group
        table.add_row(outcome.named(row), *decibels, recovered, end_section=ends_group)
    return table


def _by_steps(outcome: Outcome, columns: list[list[Row]]) -> Table:
    """Right PSNR and recovered, a column for each number of steps."""
    table = _start()
    for unit in ("dB", "%"):
        for rows in columns:
            table.add_column(f"{unit} at\n{rows[0].steps}", justify="right")
    table.add_column("chance", justify="right")
    for of_family in zip(*columns, strict=True):
        right = [tenths(row.scores.right) for row in of_family]
        recovered = [f"{row.scores.recovered:.0%}" for row in of_family]
        table.add_row(outcome.named(of_family[0]), *right, *recovered, percent(of_family[0].scores.chance))
    return table


def _start() -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0)
    table.add_column("family")
    return table
