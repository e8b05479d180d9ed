"""A contact sheet of evaluation cases."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.evaluation.suite import Case, to_image

COLUMNS = ("before", "after", "query", "result", "truth", "result of a wrong pair")
ENLARGE = 2


class Sheet:
    """Collects the first cases of each family, one row each: before, after, query, result, truth, wrong result."""

    def __init__(self, per_family: int = 4) -> None:
        self.per_family = per_family
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, family: str, case: Case, right: Tensor, wrong: Tensor) -> None:
        rows = self.rows.setdefault(family, [])
        if len(rows) < self.per_family:
            rows.append(torch.cat([case.before, case.after, case.query, right, case.truth, wrong], -1))

    def save(self, path: Path) -> None:
        """Write a PNG, families side by side two by two."""
        blocks = [torch.cat(rows, -2) for rows in self.rows.values()]
        if len(blocks) % 2:
            blocks.append(torch.ones_like(blocks[-1]))
        halves = [torch.cat(blocks[start::2], -2) for start in (0, 1)]
        gap = torch.ones(3, halves[0].shape[1], 8)
        sheet = to_image(torch.cat([halves[0], gap, halves[1]], -1))
        sheet.resize((sheet.width * ENLARGE, sheet.height * ENLARGE)).save(path)
