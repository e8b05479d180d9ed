"""Looking in on a training that runs for hours: scores of every family, pictures, and a page that shows both."""

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

SCORES, SAMPLES, PAGE, LOG = "scores.jsonl", "samples.png", "log.html", "log.jsonl"
SIZE = (260, 90)  # of a curve, in pixels

Point = tuple[float, float]


def look(editor: Editor, plan: Plan, folder: Path, step: int) -> list[Row]:
    """Score the editor, append to `folder`/scores.jsonl, and renew samples.png and log.html there."""
    sheet = Sheet(per_family=2)
    rows = list(evaluate_scenes(editor, plan, sheet.add))
    with (folder / SCORES).open("a") as scores:
        for row in rows:
            known = {name: None if math.isnan(value) else value for name, value in asdict(row.scores).items()}
            scores.write(json.dumps({"step": step, "family": row.family} | known) + "\n")
    sheet.save(folder / SAMPLES)
    write_page(folder)
    return rows


def write_page(folder: Path) -> None:
    """Write log.html: the curve of the loss, those of every family, and the newest samples."""
    losses = [(line["step"], line["loss"]) for line in _read_lines(folder / LOG)]
    families: dict[str, list[dict[str, Any]]] = {}
    for line in _read_lines(folder / SCORES):
        families.setdefault(line["family"], []).append(line)
    environment = Environment(
        loader=PackageLoader("training.base", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("log.html.j2").render(
        size=SIZE,
        losses=losses,
        loss_curve=_curve(losses, (0, max((loss for _, loss in losses), default=1))),
        families=[_family(name, lines) for name, lines in families.items()],
        samples=SAMPLES,
        columns=COLUMNS,
    )
    partial = folder / f"{PAGE}.partial"
    partial.write_text(page)
    partial.replace(folder / PAGE)


def _family(name: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page says about one family: the newest scores, and the share recovered over the steps."""
    recovered = [(line["step"], line["recovered"]) for line in lines]
    chance = [(recovered[0][0], lines[-1]["chance"]), (recovered[-1][0], lines[-1]["chance"])]
    return {"name": name, "last": lines[-1], "curve": _curve(recovered, (0, 1)), "chance": _curve(chance, (0, 1))}


def _curve(points: Sequence[Point], span: tuple[float, float]) -> str:
    """The `points` attribute of an SVG polyline over the whole width; y spans `span`, upwards."""
    if not points:
        return ""
    (first, _), (last, _) = points[0], points[-1]
    width, height = SIZE
    low, high = span
    return " ".join(
        f"{(x - first) / max(last - first, 1) * width:.1f},{height - (y - low) / (high - low) * height:.1f}"
        for x, y in points
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
