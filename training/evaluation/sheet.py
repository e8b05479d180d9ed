"""A contact sheet of evaluation cases."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.evaluation.suite import Shown, to_image

COLUMNS = ("before", "after", "query", "result", "truth", "wrong pair")
ENLARGE = 2

Panels = tuple[Tensor, ...]  # as in COLUMNS, each (3, H, W) in [0, 1]


class Sheet:
    """Collects the first pairs of each family, with one query each, from the first split that has the family."""

    def __init__(self, per_family: int = 4) -> None:
        self.per_family = per_family
        self.splits: dict[str, str] = {}
        self.rows: dict[str, list[Panels]] = {}

    def add(self, shown: Shown) -> None:
        rows, case = self.rows.setdefault(shown.family, []), shown.case
        seen_pair = bool(rows) and rows[-1][0] is case.before
        other_split = self.splits.setdefault(shown.family, shown.split) != shown.split
        if other_split or seen_pair or len(rows) == self.per_family:
            return
        rows.append((case.before, case.after, case.query, shown.right, case.truth, shown.wrong))

    def save(self, path: Path) -> None:
        """Write a PNG, families side by side two by two."""
        blocks = [torch.cat([torch.cat(row, -1) for row in rows], -2) for rows in self.rows.values()]
        if len(blocks) % 2:
            blocks.append(torch.ones_like(blocks[-1]))
        halves = [torch.cat(blocks[start::2], -2) for start in (0, 1)]
        gap = torch.ones(3, halves[0].shape[1], 8)
        sheet = to_image(torch.cat([halves[0], gap, halves[1]], -1))
        sheet.resize((sheet.width * ENLARGE, sheet.height * ENLARGE)).save(path)
