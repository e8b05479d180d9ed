"""What a run of the benchmark covers: splits, edit families, cases, steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.errors import UsageError
from training.scenes import COMPOSITIONS, EVERY_FAMILY, FAMILIES, RESERVED, UNSEEN_COMPOSITIONS

if TYPE_CHECKING:
    from pipelines.transfer import Editor

LARGEST_SIDE = 512  # pixels of a panel unless asked for; scenes have no more detail to show

GROUPS = {
    "trained": FAMILIES,
    "composition": COMPOSITIONS,
    "unseen composition": UNSEEN_COMPOSITIONS,
    "reserved": RESERVED,
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a case may show: held-out objects and photographs, parameters from the held-out band, both or neither."""

    held_out_objects: bool
    held_out_parameters: bool
    told: str


SPLITS = {
    "seen": Split(
        held_out_objects=False,
        held_out_parameters=False,
        told="objects and parameters as in training, drawn afresh",
    ),
    "objects": Split(
        held_out_objects=True,
        held_out_parameters=False,
        told="objects and photographs that training never shows, parameters as in training",
    ),
    "parameters": Split(
        held_out_objects=False,
        held_out_parameters=True,
        told="objects as in training, parameters from the band that training never shows",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the benchmark; panels are `size` x `size` pixels. No `steps` and no `size` mean the base's own.

    Raises:
        UsageError: an unknown split or family, or nothing to measure.
    """

    splits: tuple[str, ...] = ("objects",)
    families: tuple[str, ...] = tuple(EVERY_FAMILY)
    cases: int = 32
    steps: tuple[int, ...] = ()
    seed: int = 0
    size: int | None = None

    def __post_init__(self) -> None:
        _check_known("split", self.splits, SPLITS)
        _check_known("edit family", self.families, EVERY_FAMILY)
        if self.cases < 1 or min(self.steps, default=1) < 1:
            raise UsageError("There is nothing to measure: give at least one case and one denoising step.")
        if not self.runs:
            raise UsageError(
                f"Nothing is left to measure: the edits of {', '.join(self.families)} are a few choices, of which none"
                " is held out. Use --split objects."
            )

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(split, family) in order; families of a few choices have no band to hold out, so they lack that split."""
        return [
            (split, family)
            for split in SPLITS
            for family in EVERY_FAMILY
            if split in self.splits and family in self.families
            if not (SPLITS[split].held_out_parameters and EVERY_FAMILY[family].choices)
        ]

    def fit(self, editor: Editor) -> Plan:
        """The same plan with steps and panels that suit the base.

        Raises:
            UsageError: the size is not a multiple of the base's token, or larger than the base takes.
        """
        steps = self.steps or (editor.default_steps,)
        return replace(self, steps=steps, size=_panel_side(self.size, editor.family.multiple, editor.max_area))


def _check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UsageError(f"There is no {kind} {', '.join(unknown)}. Known: {', '.join(known)}.")


def group_of(family: str) -> str:
    """`trained`, `composition`, `unseen composition` or `reserved`."""
    return next(group for group, families in GROUPS.items() if family in families)


def _panel_side(asked: int | None, multiple: int, max_area: int) -> int:
    if asked is None:
        return min(math.isqrt(max_area), LARGEST_SIDE) // multiple * multiple
    if asked % multiple:
        near = max(asked // multiple, 1) * multiple
        raise UsageError(
            f"Panels of {asked} pixels do not fit this base: its tokens are {multiple} pixels wide. Use --size {near}."
        )
    if asked * asked > max_area:  # the Editor would shrink them, and the report tell another size than was measured
        raise UsageError(f"Panels of {asked} pixels are larger than this base takes: {math.isqrt(max_area)} at most.")
    return asked
