"""The tables of a card, in Markdown: what stands in it is what the command prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from training.evaluation.outcome import Outcome, at_steps
from training.evaluation.plan import SPLITS
from training.evaluation.scores import Scores, hundredths, percent, tenths
from training.evaluation.suite import Row

COLUMNS = ("right pair", "wrong pair", "margin", "margin, changed region", "copy", "oracle", "changed (SSIM)",
           "rest (SSIM)", "recovered", "chance")  # fmt: skip
MAIN = "objects"  # the split that a card shows in full, if it was measured


def written(outcome: Outcome) -> str:
    """The scores of the split that counts, and how several splits compare; or by steps, if there are several."""
    splits = list(dict.fromkeys(row.split for row in outcome.rows))
    if len(outcome.plan.steps) > 1:
        return "\n\n".join(_told(outcome, split) + "\n\n" + _by_steps(outcome, split) for split in splits)
    main = MAIN if MAIN in splits else splits[0]
    tables = [_told(outcome, main), _in_full(outcome, main)]
    if len(splits) > 1:
        tables += ["Margin in the changed region and share recovered, by split:", _by_split(outcome, splits)]
    return "\n\n".join(tables)


def _told(outcome: Outcome, split: str) -> str:
    plan = outcome.plan
    how = [f"{plan.cases} cases", f"{plan.size} px", *filter(None, map(at_steps, plan.counts)), f"seed {plan.seed}"]
    return (
        f"{outcome.system}, `{split}`: {SPLITS[split].told}. {', '.join(how)}; benchmark version {outcome.benchmark},"
        f" cases `{outcome.cases_digest[:12]}`. PSNR in dB."
    )


def _in_full(outcome: Outcome, split: str) -> str:
    lines: list[list[str]] = []
    for group, rows in groupby(outcome.of_split(split, outcome.plan.counts[0]), lambda row: row.group):
        if lines:
            lines.append([f"*{group}*", *[""] * len(COLUMNS)])
        lines += [[outcome.named(row), *_cells(row.scores)] for row in rows]
    return _table(["family", *COLUMNS], lines)


def _cells(s: Scores) -> list[str]:
    return [
        *map(tenths, (s.right, s.wrong, s.margin, s.changed_margin, s.copy, s.oracle)),
        f"{tenths(s.changed)} ({hundredths(s.changed_ssim)})",
        f"{tenths(s.rest)} ({hundredths(s.rest_ssim)})",
        percent(s.recovered),
        percent(s.chance),
    ]


def _by_split(outcome: Outcome, splits: Sequence[str]) -> str:
    found = {(row.split, row.family): row for row in outcome.rows}
    heads = [f"{split}: margin, recovered{_beside(split)}" for split in splits]
    families = dict.fromkeys(row.family for row in outcome.rows)
    lines = [[family, *(_both(found.get((split, family))) for split in splits)] for family in families]
    return _table(["family", *heads], lines)


def _beside(split: str) -> str:
    """What stands in for chance where that is unknown."""
    return " (wrong pair)" if SPLITS[split].held_out_parameters else ""


def _both(row: Row | None) -> str:
    if row is None:
        return "-"
    wrong = f" ({percent(row.scores.recovered_wrong)})" if _beside(row.split) else ""
    return f"{tenths(row.scores.changed_margin)} dB, {percent(row.scores.recovered)}{wrong}"


def _by_steps(outcome: Outcome, split: str) -> str:
    rows_by_steps = [outcome.of_split(split, steps) for steps in outcome.plan.counts]
    lines = [
        [outcome.named(rows[0]), *(f"{tenths(row.scores.right)} dB, {percent(row.scores.recovered)}" for row in rows)]
        for rows in zip(*rows_by_steps, strict=True)
    ]
    return _table(["family", *map(at_steps, outcome.plan.counts)], lines)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in (heads, rule, *lines))
