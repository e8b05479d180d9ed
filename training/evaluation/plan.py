"""What a run of the benchmark covers: splits, edit families, cases, steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.errors import UsageError
from training.scenes import (
    BUSY,
    COMPOSITIONS,
    EVERY_FAMILY,
    FAMILIES,
    HELD_OUT,
    RESERVED,
    SPRITES,
    TRAINING,
    UNSEEN_COMPOSITIONS,
    Look,
)

if TYPE_CHECKING:
    from pipelines.transfer import Editor

LARGEST_SIDE = 512  # pixels of a panel unless asked for; scenes have no more detail to show
QUERIES = 2  # asked of each pair: remembering it costs as much as an edit does

GROUPS = {
    "trained": FAMILIES,
    "composition": COMPOSITIONS,
    "unseen composition": UNSEEN_COMPOSITIONS,
    "reserved": RESERVED,
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a case may show.

    look: of the scenes.
    held_out_parameters: the demonstrated ones come from the band that training never shows.
    lacks: families that cannot be shown there.
    """

    told: str
    look: Look = TRAINING
    held_out_parameters: bool = False
    lacks: tuple[str, ...] = ()

    def shows(self, family: str) -> bool:
        """Whether it has cases of a family; those of a few choices have no band to hold out."""
        return family not in self.lacks and not (self.held_out_parameters and EVERY_FAMILY[family].choices)


SPLITS = {
    "seen": Split(
        told="objects and parameters as in training, drawn afresh",
    ),
    "objects": Split(
        look=HELD_OUT,
        told="objects and photographs that training never shows, before plain backdrops, parameters as in training",
    ),
    "busy": Split(
        look=BUSY,
        told="the same objects among others, before patterns and photographs, in sunlight",
    ),
    "renderer": Split(
        look=SPRITES,
        told="objects of another renderer, painted in a way that training never shows, parameters as in training",
        lacks=("pose", "lid"),
    ),
    "parameters": Split(
        held_out_parameters=True,
        told="objects as in training, parameters from the band that training never shows",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One pair, and what is asked of it: the cases `first`, `first` + 1 and so on of a family in a split."""

    split: str
    family: str
    first: int
    queries: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the benchmark; panels are `size` x `size` pixels.

    No `steps` and no `size` mean the base's own; what has no steps, like a folder of results, has none.

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
                f"Nothing is left to measure: {', '.join(self.splits)} has no cases of {', '.join(self.families)}"
                " (edits of a few choices have none to hold out). Use --split objects."
            )

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(split, family) in order, without the families that a split cannot show."""
        return [
            (split, family)
            for split in SPLITS
            for family in EVERY_FAMILY
            if split in self.splits and family in self.families
            if SPLITS[split].shows(family)
        ]

    @property
    def asks(self) -> list[Ask]:
        """Every pair of every run, in order."""
        return [
            Ask(split=split, family=family, first=first, queries=min(QUERIES, self.cases - first))
            for split, family in self.runs
            for first in range(0, self.cases, QUERIES)
        ]

    @property
    def counts(self) -> tuple[int | None, ...]:
        """The numbers of steps at which there are results: None alone for what has no steps."""
        return self.steps or (None,)

    def fit(self, editor: Editor) -> Plan:
        """The same plan with steps and panels that suit the base.

        Raises:
            UsageError: the size is not a multiple of the base's token, or larger than the base takes.
        """
        steps = self.steps or (editor.default_steps,)
        return replace(self, steps=steps, size=panel_side(self.size, editor.family.multiple, editor.max_area))


def _check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UsageError(f"There is no {kind} {', '.join(unknown)}. Known: {', '.join(known)}.")


def group_of(family: str) -> str:
    """`trained`, `composition`, `unseen composition` or `reserved`."""
    return next(group for group, families in GROUPS.items() if family in families)


def panel_side(asked: int | None, multiple: int, max_area: int) -> int:
    """Pixels of a panel's side: what was asked for, or the most that a base takes, within reason.

    Raises:
        UsageError: what was asked for is not a multiple of the base's token, or larger than the base takes.
    """
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
