"""What one case is scored by, and the means over many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from training.evaluation.cases import Case
from training.evaluation.metrics import changed_region, psnr, share_of_first, ssim_map
from training.evaluation.pictures import eight_bits


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the cases of one family in one split; PSNR in dB, NaN where no case has such pixels or results.

    right, wrong: the result with the right and with the wrong pair against the truth; `margin` is their difference.
    copy: the untouched query against the truth.
    oracle: the best of the other alternatives: what somebody reaches who knows the kind of edit and the query, and
        picks the luckiest of K - 1 random edits that are not the demonstrated one.
    blind: the mean picture of the other alternatives, which is where a base ends that knows the kind of edit and
        hedges instead of reading the pair.
    changed, changed_ssim, changed_copy: `right`, its SSIM, and `copy`, where the edit changes the picture;
        `changed_margin` is right minus wrong there.
    rest, rest_ssim: the same where it does not.
    recovered: share of results nearest to the truth of the demonstrated parameters among all alternatives, by squared
        error; `recovered_wrong` the same for results with the wrong pair, `chance` that of guessing, NaN in the split
        where the right parameters are drawn unlike the others.
    """

    cases: int
    chance: float
    right: float
    wrong: float
    margin: float
    copy: float
    oracle: float
    blind: float
    changed: float
    changed_ssim: float
    changed_margin: float
    changed_copy: float
    rest: float
    rest_ssim: float
    recovered: float
    recovered_wrong: float


def score(case: Case, right: Tensor, wrong: Tensor | None) -> dict[str, float]:
    """All means of `Scores` for one case; `right` and `wrong` are the results (3, H, W). NaN for what takes a wrong one
    where there is none."""
    truth, changed = case.truth, changed_region(case.query, case.truth)
    similarity = ssim_map(right, truth)
    scores = {
        "chance": 1 / len(case.alternatives),
        "right": psnr(right, truth),
        "wrong": math.nan if wrong is None else psnr(wrong, truth),
        "copy": psnr(case.query, truth),
        "oracle": psnr(luckiest(case.alternatives), truth),
        "blind": psnr(hedge(case.alternatives), truth),
        "changed": psnr(right, truth, changed),
        "changed_ssim": float(similarity[changed].mean()),
        "changed_copy": psnr(case.query, truth, changed),
        "rest": psnr(right, truth, ~changed),
        "rest_ssim": float(similarity[~changed].mean()),
        "recovered": share_of_first(right, case.alternatives),
        "recovered_wrong": math.nan if wrong is None else share_of_first(wrong, case.alternatives),
    }
    scores["margin"] = scores["right"] - scores["wrong"]
    scores["changed_margin"] = math.nan if wrong is None else scores["changed"] - psnr(wrong, truth, changed)
    return scores


def luckiest(alternatives: Tensor) -> Tensor:
    """The one (3, H, W) nearest to the first of the alternatives (K, 3, H, W), itself left out."""
    return max(alternatives[1:], key=lambda other: psnr(other, alternatives[0]))


def hedge(alternatives: Tensor) -> Tensor:
    """The mean picture (3, H, W) of all alternatives (K, 3, H, W) but the first."""
    return eight_bits(alternatives[1:].mean(0))


def percent(share: float) -> str:
    """As people read it; n/a for NaN."""
    return "n/a" if math.isnan(share) else f"{share:.0%}"


def hundredths(value: float) -> str:
    """A similarity as people read it; n/a for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def tenths(value: float) -> str:
    """A number as people read it: one digit after the point, no minus before zero, n/a for NaN."""
    return "n/a" if math.isnan(value) else f"{round(value, 1) + 0.0:.1f}"


def mean(rows: Sequence[dict[str, float]]) -> Scores:
    """The means over all cases that have a value."""
    columns = {key: [row[key] for row in rows if not math.isnan(row[key])] for key in rows[0]}
    return Scores(cases=len(rows), **{key: fmean(values or [math.nan]) for key, values in columns.items()})
