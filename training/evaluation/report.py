"""The report: one self-contained page with a table for each split, and what the results look like."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from infra import store
from training.evaluation.outcome import Outcome
from training.evaluation.plan import GROUPS, QUERIES, SPLITS, group_of
from training.evaluation.scores import hundredths, percent, tenths
from training.evaluation.sheet import COLUMNS, Sheet
from training.evaluation.suite import Row
from training.sheet import png

LARGEST = 128  # pixels of the side of a picture in the page; larger panels are brought down to it
SPARK = (72, 20)  # width and height of a small curve, in pixels


def write(path: Path, outcome: Outcome, sheet: Sheet) -> None:
    """Write the page; raises `StoreError` where that is impossible."""
    first, splits = outcome.plan.counts[0], list(dict.fromkeys(row.split for row in outcome.rows))
    page = _environment().get_template("report.html.j2").render(
        outcome=outcome,
        plan=outcome.plan,
        splits={name: SPLITS[name].told for name in splits},
        tables={split: _sections(outcome.of_split(split, first)) for split in splits},
        curves={split: _curves(outcome, split) for split in splits} if len(outcome.plan.steps) > 1 else {},
        columns=COLUMNS,
        pictures=_pictures(sheet),
        error=0.5 / math.sqrt(outcome.plan.cases / QUERIES),
        settings=_settings(outcome),
        at=datetime.now(UTC),
    )  # fmt: skip
    store.write(str(path), page.encode())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["db"] = tenths
    environment.filters["similarity"] = hundredths
    environment.filters["percent"] = percent
    return environment


def _sections(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """The rows under the name of their group."""
    return [(group, list(members)) for group, members in groupby(rows, lambda row: row.group)]


def _curves(outcome: Outcome, split: str) -> list[dict[str, Any]]:
    """For each family its rows by steps, and the points of a small curve of the right PSNR."""
    by_steps = zip(*(outcome.of_split(split, steps) for steps in outcome.plan.counts), strict=True)
    return [{"rows": rows, "best": max(row.scores.right for row in rows), "points": _points(rows)} for rows in by_steps]


def _points(rows: tuple[Row, ...]) -> str:
    values = [row.scores.right for row in rows]
    low, span = min(values), max(max(values) - min(values), 0.5)  # half a dB fills a curve's height at least
    width, height = (side - 4 for side in SPARK)
    return " ".join(
        f"{2 + width * index / (len(values) - 1):.1f},{2 + height * (1 - (value - low) / span):.1f}"
        for index, value in enumerate(values)
    )


def _pictures(sheet: Sheet) -> list[dict[str, Any]]:
    return [
        {
            "family": family,
            "group": group_of(family),
            "split": sheet.splits[family],
            "rows": [[_data_uri(panel) for panel in row] for row in rows],
        }
        for family, rows in sheet.rows.items()
    ]


def _data_uri(panel: Image.Image) -> str:
    if panel.width > LARGEST:
        panel = panel.resize((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return f"data:image/png;base64,{base64.b64encode(png(panel)).decode()}"


def _settings(outcome: Outcome) -> dict[str, Any]:
    plan = outcome.plan
    groups = {group: sum(family in families for family in plan.families) for group, families in GROUPS.items()}
    return {
        **_who(outcome),
        "benchmark": f"version {outcome.benchmark}, cases {outcome.cases_digest}",
        "families": ", ".join(f"{count} {group}" for group, count in groups.items() if count),
        "cases": f"{plan.cases} for each family and split, {outcome.scored} of {len(plan.runs) * plan.cases} scored",
        "panels": f"{plan.size} x {plan.size} pixels",
        "seed": plan.seed,
        "machine": outcome.machine,
        "time": f"{outcome.seconds:.0f} s, {outcome.seconds / outcome.scored:.2f} s for each case",
    }


def _who(outcome: Outcome) -> dict[str, Any]:
    if outcome.base is None:
        return {"system": outcome.system}
    return {
        "base": f"{outcome.base}, revision {(outcome.base_revision or '')[:12]}",
        "adapter": f"{outcome.adapter}, {(outcome.adapter_digest or '')[:12]}" if outcome.adapter else "none",
        "steps": ", ".join(map(str, outcome.plan.steps)),
        "device": outcome.device,
    }
