"""The outcome of a run: what was measured on what, as one JSON object."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import torch

from pipelines.transfer import Editor
from training.evaluation.plan import Plan
from training.evaluation.suite import Row

DIGITS = 4  # after the point


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that is needed to say where the numbers come from."""

    base: str
    base_revision: str
    adapter: str | None
    adapter_digest: str | None
    device: str
    machine: str
    plan: Plan
    seconds: float
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, editor: Editor, adapter: str | None, plan: Plan, rows: Sequence[Row], seconds: float) -> Outcome:
        device = editor.family.device
        chip = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
        return cls(
            base=editor.base,
            base_revision=editor.revision,
            adapter=PurePath(adapter).name if adapter else None,
            adapter_digest=editor.adapter_digest,
            device=device.type,
            machine=f"{chip}{os.cpu_count()} CPUs, {torch.get_num_threads()} threads, torch {torch.__version__}",
            plan=plan.fit(editor),
            seconds=seconds,
            rows=tuple(rows),
        )

    def of_split(self, split: str, steps: int) -> list[Row]:
        """The rows of one table."""
        return [row for row in self.rows if row.split == split and row.steps == steps]

    def to_json(self) -> str:
        """One object; `results` has a flat row for each split, family and number of steps, with null for NaN."""
        plan = {key: value for key, value in vars(self.plan).items() if key != "families"}
        head = {key: value for key, value in vars(self).items() if key not in ("plan", "rows")}
        head["seconds"] = round(self.seconds, 1)
        return json.dumps({"suite": "scenes", **head, **plan, "results": [_flat(row) for row in self.rows]}, indent=2)


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    scores = {key: None if math.isnan(value) else round(value, DIGITS) for key, value in flat.pop("scores").items()}
    return flat | scores
