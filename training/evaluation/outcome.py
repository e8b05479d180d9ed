"""The outcome of a run: what was measured on what, as one JSON object."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from training.evaluation.cases import VERSION, digest_of
from training.evaluation.plan import Plan
from training.evaluation.subject import Subject
from training.evaluation.suite import Row
from training.evaluation.systems import Steps

DIGITS = 4  # after the point


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that is needed to say where the numbers come from; base and device are those of an editor."""

    system: str
    benchmark: int
    cases_digest: str
    base: str | None
    base_revision: str | None
    adapter: str | None
    adapter_digest: str | None
    device: str | None
    machine: str
    plan: Plan
    seconds: float
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, subject: Subject, rows: Sequence[Row], processes: int, seconds: float) -> Outcome:
        editor = subject.editor
        device = editor.family.device if editor else None
        chip = f"{torch.cuda.get_device_name(device)}, " if device and device.type == "cuda" else ""
        first = [row for row in rows if row.steps == subject.plan.counts[0]]
        return cls(
            system=subject.name,
            benchmark=VERSION,
            cases_digest=digest_of([row.cases_digest for row in first]),
            base=editor.base if editor else None,
            base_revision=editor.revision if editor else None,
            adapter=subject.adapter,
            adapter_digest=editor.adapter_digest if editor else None,
            device=device.type if device else None,
            machine=f"{chip}{os.cpu_count()} CPUs, {processes} {_plural('process', processes)},"
            f" torch {torch.__version__}",
            plan=subject.plan,
            seconds=seconds,
            rows=tuple(rows),
        )

    def of_split(self, split: str, steps: Steps) -> list[Row]:
        """The rows of one table."""
        return [row for row in self.rows if row.split == split and row.steps == steps]

    @property
    def scored(self) -> int:
        """Cases that were scored."""
        return sum(row.scores.cases for row in self.rows if row.steps == self.plan.counts[0])

    def named(self, row: Row) -> str:
        """A row's family, and of how many cases it is where some have no result."""
        missing = row.scores.cases < self.plan.cases
        return f"{row.family} ({row.scores.cases} of {self.plan.cases})" if missing else row.family

    def to_json(self) -> str:
        """One object; `results` has a flat row for each split, family and number of steps, with null for NaN."""
        plan = {key: value for key, value in vars(self.plan).items() if key != "families"}
        head = {key: value for key, value in vars(self).items() if key not in ("plan", "rows")}
        head["seconds"] = round(self.seconds, 1)
        rows = [{"system": self.system, **_flat(row)} for row in self.rows]
        return json.dumps({"suite": "scenes", **head, **plan, "results": rows}, indent=2)


def at_steps(steps: Steps) -> str:
    """As people read it: nothing for what has no steps."""
    return "" if steps is None else f"{steps} {_plural('step', steps)}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}{'es' if noun.endswith('s') else 's'}"


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    scores = {key: None if math.isnan(value) else round(value, DIGITS) for key, value in flat.pop("scores").items()}
    return flat | scores
