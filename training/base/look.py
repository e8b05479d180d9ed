"""Looking in on a training: a page with curves, and at its end scores of every family and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.transfer import Editor
from training.evaluation import Plan, Row, evaluate_scenes
from training.evaluation.sheet import COLUMNS, Sheet

SCORES, SAMPLES, PAGE, LOG = "scores.json", "samples.png", "log.html", "log.jsonl"
SIZE = (260, 90)  # of a curve, in pixels

Point = tuple[float, float]


def look(editor: Editor, plan: Plan, folder: Path, step: int) -> list[Row]:
    """Score the editor, and write `folder`/scores.json, samples.png and log.html."""
    sheet = Sheet(per_family=2)
    rows = list(evaluate_scenes(editor, plan, sheet.add))
    known = [
        {"step": step, "family": row.family} | {name: _number(value) for name, value in asdict(row.scores).items()}
        for row in rows
    ]
    sheet.save(folder / SAMPLES)
    (folder / SCORES).write_text(json.dumps(known, indent=2) + "\n")
    write_page(folder)
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_page(folder: Path) -> None:
    """Write log.html: the curve of the loss, those of every family, and at the end the scores and samples."""
    lines = _read_log(folder / LOG)
    losses = [(line["step"], line["loss"]) for line in lines]
    families = list(dict.fromkeys(name for line in lines for name in line["notes"]))
    environment = Environment(
        loader=PackageLoader("training.base", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("log.html.j2").render(
        size=SIZE,
        losses=losses,
        loss_curve=_curve(losses, max((loss for _, loss in losses), default=1)),
        families=[_family(name, lines) for name in families],
        scores=json.loads((folder / SCORES).read_text()) if (folder / SCORES).exists() else [],
        samples=SAMPLES,
        columns=COLUMNS,
    )
    partial = folder / f"{PAGE}.partial"
    partial.write_text(page)
    partial.replace(folder / PAGE)


def _family(name: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page says about one family: its error against copying, now and over the steps."""
    points = [(line["step"], line["notes"][name]) for line in lines if name in line["notes"]]
    return {"name": name, "last": points[-1][1], "curve": _curve(points, 1)}


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of the log; of steps that a killed run had to do again, the newest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    newest = {line["step"]: line for line in lines}
    return [newest[step] for step in sorted(newest)]


def _curve(points: Sequence[Point], highest: float) -> str:
    """The `points` attribute of an SVG polyline over the whole width; y from 0 up to `highest`."""
    if not points:
        return ""
    (first, _), (last, _) = points[0], points[-1]
    width, height = SIZE
    return " ".join(
        f"{(x - first) / max(last - first, 1) * width:.1f},{height - y / highest * height:.1f}" for x, y in points
    )


def table(rows: Sequence[Row]) -> str:
    """The scores as plain text, one line for each family."""
    lines = [
        f"{'family':22}{'right':>8}{'wrong':>8}{'margin':>8}{'changed':>9}{'rest':>7}{'recovered':>11}{'chance':>8}"
    ]
    lines += [
        f"{row.family:22}{s.right:8.1f}{s.wrong:8.1f}{s.margin:8.1f}{s.changed:9.1f}{s.rest:7.1f}"
        f"{s.recovered:11.0%}{s.chance:8.0%}"
        for row in rows
        for s in (row.scores,)
    ]
    return "\n".join(lines)
