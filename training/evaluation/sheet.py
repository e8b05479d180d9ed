"""A contact sheet of evaluation cases."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from training.evaluation.plan import QUERIES
from training.evaluation.suite import Shown

COLUMNS = ("before", "after", "query", "result", "truth", "wrong pair")
ENLARGE, GAP = 2, 8
PAPER = "white"

Panels = tuple[Image.Image, ...]  # as in COLUMNS


class Sheet:
    """Collects the first pairs of each family, with one query each, from the first split that has the family."""

    def __init__(self, per_family: int = 4) -> None:
        self.per_family = per_family
        self.splits: dict[str, str] = {}
        self.pairs: dict[str, dict[int, Panels]] = {}

    @property
    def rows(self) -> dict[str, list[Panels]]:
        """What there is to see of each family."""
        return {family: list(pairs.values()) for family, pairs in self.pairs.items()}

    def add(self, shown: Shown) -> None:
        pairs, pair = self.pairs.setdefault(shown.family, {}), shown.index // QUERIES
        other_split = self.splits.setdefault(shown.family, shown.split) != shown.split
        if other_split or pair in pairs or len(pairs) == self.per_family:
            return
        wrong = shown.wrong or Image.new("RGB", shown.right.size, PAPER)
        pairs[pair] = (shown.before, shown.after, shown.query, shown.right, shown.truth, wrong)

    def save(self, path: Path) -> None:
        """Write a PNG, families side by side two by two."""
        blocks = [_block(rows) for rows in self.rows.values()]
        if not blocks:
            return
        heights = [max(block.height for block in blocks[start : start + 2]) for start in range(0, len(blocks), 2)]
        width = blocks[0].width
        sheet = Image.new("RGB", (2 * width + GAP, sum(heights)), PAPER)
        for index, block in enumerate(blocks):
            sheet.paste(block, (index % 2 * (width + GAP), sum(heights[: index // 2])))
        sheet.resize((sheet.width * ENLARGE, sheet.height * ENLARGE)).save(path)


def _block(rows: list[Panels]) -> Image.Image:
    width, height = rows[0][0].size
    block = Image.new("RGB", (len(COLUMNS) * width, len(rows) * height))
    for down, row in enumerate(rows):
        for across, panel in enumerate(row):
            block.paste(panel, (across * width, down * height))
    return block
