"""What the two sides of a pair are called, by us and by other trainers, as data; and which file is which side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

APART = r"[ _.\-]+"  # what stands between a word and NAME: `friend` is no `end`, and `input.png` has no NAME
ABOVE = r"(?:(?P<above>.+)/)?"


@dataclass(frozen=True)
class Side:
    """What a file is to a naming: the `role` (before or after), and `key`, what it shares with the other side: the
    folder above, and NAME. `literal` where it is called so to the letter, case aside."""

    role: str
    key: tuple[str, str]
    literal: bool


@dataclass(frozen=True)
class Naming:
    """NAME stands for what both sides share, the word tells them apart; before a `/` it is a folder's name.

    Between NAME and the word may be `_`, `-`, dots and spaces, the word may stand in brackets, and case is all one.
    """

    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{'' if 'NAME' in self.before else 'columns '}{self.before}, {self.after}"

    def side(self, path: PurePosixPath) -> Side | None:
        """Which side a file is, by its path below the pairs' folder; None where it is called otherwise."""
        for role, pattern, literal in self._patterns:
            if match := pattern.fullmatch(str(path.with_suffix(""))):
                return Side(role, (str(PurePosixPath(match["above"] or ".")), match["name"]), literal)
        return None

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str], bool]]:
        called = {"before": _patterns(self.before), "after": _patterns(self.after)}
        return [
            (role, re.compile(patterns[kind], re.IGNORECASE), kind == 0)
            for kind in (0, 1)
            for role, patterns in called.items()
            if kind < len(patterns)
        ]


def _patterns(called: str) -> list[str]:
    """Regular expressions of a path without its suffix: to the letter, and as people write it besides."""
    word = re.escape(called.replace("NAME", "").strip("_/"))
    bracketed = rf"(?:\({word}\)|\[{word}\])"
    if "/" in called:  # NAME may have the word once more: before/shoe_before.png
        return [rf"{ABOVE}{word}/(?:{word}{APART})?(?P<name>.+?)(?:{APART}{word})?"]
    if called.startswith("NAME"):  # to the letter, `a__before` is named `a_`
        loose = rf"{ABOVE}(?P<name>[^/\n]+?)(?:{APART}{word}|[ _.\-]*{bracketed})"
        return [rf"{ABOVE}(?P<name>[^/\n]+)_{word}", loose]
    numbered = rf"{word}(?=[\d(])"  # before1, before(1)
    return [rf"{ABOVE}(?:{word}{APART}|{numbered}|{bracketed}[ _.\-]*)(?P<name>[^/\n]+)"]


NAMINGS = (
    Naming("NAME_before", "NAME_after", "this project's own"),
    Naming("before_NAME", "after_NAME", "the same words in front; `before1`, `before (1)` too"),
    Naming("NAME_start", "NAME_end", "fal: flux-kontext-trainer, flux-2-trainer/edit (ROOT_start.EXT, ROOT_end.EXT)"),
    Naming("NAME_input", "NAME_target", "Replicate: trainers of edit models"),
    Naming("before/NAME", "after/NAME", "the same words as folders"),
    Naming("control/NAME", "target/NAME", "ostris/ai-toolkit: control_path and folder_path, equal file names"),
    Naming("source/NAME", "target/NAME", "the same in the words of image translation"),
    Naming("control_1/NAME", "main/NAME", "Civitai: training of edit models"),
)
OWN = NAMINGS[0]

COLUMNS = (
    Naming("before", "after", "this project's own; a column `edit` may tell edits apart"),
    Naming("edit_image", "image", "DiffSynth-Studio: metadata.csv, .json or .jsonl; `image` is the target"),
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.json", "metadata.parquet")  # a folder's own table of its pairs
