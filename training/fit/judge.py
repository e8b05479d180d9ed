"""Which pairs are held out, and how well an adapter does on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from PIL import Image

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from pipelines.transfer.passes import Prefix
from training.evaluation.metrics import changed_region, psnr
from training.evaluation.suite import to_pixels

ONE_IN = 6  # of the pairs of an edit are held out, or of the edits
ENOUGH = 4  # pairs of an edit, or edits of two pairs: below, all are needed for training
MOST_JUDGED = 8  # pairs; looking at more would take longer than training


@dataclass(frozen=True)
class Trial:
    """A pair to be predicted from others of its edit, which are shown."""

    asked: Pair
    shown: tuple[Pair, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over the judged pairs, PSNR in dB against the after image.

    balanced  half of the error is that of the pixels which the edit changes, half that of the rest
    copy      the same for the untouched before image: what doing nothing scores
    changed   where the edit changes the picture
    """

    balanced: float
    copy: float
    changed: float

    @property
    def gain(self) -> float:
        """dB above doing nothing."""
        return self.balanced - self.copy


@dataclass(frozen=True)
class Judged:
    """The score, and what there was to see: (before shown, after shown, query, result, truth) of every trial."""

    score: Score
    pictures: tuple[tuple[Image.Image, ...], ...]


def hold_out(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that training does not see; the same ones for the same pairs, whatever their order.

    Of every edit with at least four pairs one in six. Where all edits have fewer, one in six of the edits, whole.
    None, where there are too few of either.
    """
    of_edit = by_edit(pairs)
    large = [group for group in of_edit.values() if len(group) >= ENOUGH]
    if large:
        return [pair for group in large for pair in group[: max(1, len(group) // ONE_IN)]]
    several = sorted((group for group in of_edit.values() if len(group) > 1), key=lambda group: group[0].digest)
    whole = several[: max(1, len(several) // ONE_IN)] if len(several) >= ENOUGH else []
    return [pair for group in whole for pair in group]


def by_edit(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each edit, in an order that depends on their content alone."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.digest):
        groups[pair.edit].append(pair)
    return groups


def trials(asked: Sequence[Pair], known: Sequence[Pair], shown: int) -> list[Trial]:
    """What to judge by: each pair behind up to `shown` known pairs of its edit; where none is known (a whole edit is
    held out), behind others that are asked for themselves, in the last resort behind itself."""
    known_of, asked_of = by_edit(known), by_edit(asked)
    found = []
    for pair in asked[:MOST_JUDGED]:
        others = [other for other in known_of.get(pair.edit, []) if other.digest != pair.digest]
        others = others or [other for other in asked_of[pair.edit] if other.digest != pair.digest]
        found.append(Trial(pair, tuple((others or [pair])[:shown])))
    return found


def judge(editor: Editor, tried: Sequence[Trial], seed: int = 0) -> Judged:
    """Edit the before image of every trial as its shown pairs tell, and compare with the after image."""
    rows, pictures = [], []
    prefixes: dict[tuple[str, ...], Prefix] = {}  # most trials are shown the same pairs
    for index, trial in enumerate(tried):
        names = tuple(pair.digest for pair in trial.shown)
        if names not in prefixes:
            prefixes[names] = editor.remember([(pair.before, pair.after) for pair in trial.shown])
        query, truth = (editor.fit(image) for image in (trial.asked.before, trial.asked.after))
        result = editor.edit([query], prefixes[names], seeds=[seed + index])[0]
        rows.append(_scored(query, result, truth))
        pictures.append((trial.shown[0].before, trial.shown[0].after, query, result, truth))
    return Judged(Score(**{key: fmean(row[key] for row in rows) for key in rows[0]}), tuple(pictures))


def _scored(query: Image.Image, result: Image.Image, truth: Image.Image) -> dict[str, float]:
    before, edited, after = to_pixels(query), to_pixels(result), to_pixels(truth)
    changed = changed_region(before, after)
    return {
        "balanced": _balanced(edited, after, changed),
        "copy": _balanced(before, after, changed),
        "changed": psnr(edited, after, changed if changed.any() else None),
    }


def _balanced(image: torch.Tensor, truth: torch.Tensor, changed: torch.Tensor) -> float:
    error = (image - truth).square().mean(0)
    parts = [error[where].mean() for where in (changed, ~changed) if where.any()]
    return float(-10 * torch.log10(torch.stack(parts).mean().clamp(min=1e-6)))
