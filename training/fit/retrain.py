"""`edit-transfer retrain`: for a scheduler. Trains when enough new pairs have come, promotes only what is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from infra import registry
from infra.errors import AliasMoved
from infra.registry import PRODUCTION, Version
from infra.settings import Settings as Environment
from pipelines.adapters import check_base
from pipelines.pairs.check import Pair, check_pairs, usable
from pipelines.transfer import bases
from training.fit import contest
from training.fit.judge import MOST_JUDGED
from training.fit.options import Options
from training.fit.publishing import Work
from training.fit.train import LEASE_SECONDS, base_of, fitted_version, work_for
from training.pairs.show import tell_unusable

JUDGED_ONE_IN = 3  # of the new pairs: training does not see them, the candidate and production are judged by them
PROMOTED, REFUSED, NOTHING_NEW = "promoted", "refused", "nothing_new"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did, and why. Scores are balanced PSNR in dB on the judged pairs.

    outcome     promoted, refused or nothing_new
    trained     whether this run trained; a candidate that an earlier run trained is only judged again
    new_pairs   usable pairs that production has not seen
    production  the version that was production when the run began
    rival       its score, or that of the base alone where there was none
    """

    outcome: str
    why: str
    name: str
    trained: bool = False
    new_pairs: int = 0
    production: int | None = None
    candidate: int | None = None
    judged: tuple[str, ...] = ()
    score: float | None = None
    rival: float | None = None


def retrain(
    options: Options, environment: Environment, log: Path, console: Console, *, enough: int, better_by: float
) -> Outcome:
    """One run. Killed and run again, it goes on; run again without new pairs, it does nothing.

    Args:
        enough: new pairs from which training is worth it, at least 2: one to learn from, one to judge by.
        better_by: dB by which the candidate must beat production.

    Raises:
        LeaseHeld: another training of this adapter is under way.
        UsageError: of some kind, before anything is started.
        EditTransferError: the training broke.
    """
    with registry.lease(options.registry, options.name, "training", LEASE_SECONDS) as lease:
        production = _production(options)
        base = base_of(options, environment)
        if production:
            check_base(production, bases.revision_of(base))
            options = _as_before(options, production)
        checked = check_pairs(options.pairs, environment.max_pixels, options.align)
        tell_unusable(console, checked)
        pairs = usable(checked, options.pairs)
        seen = _seen(production)
        new = [pair for pair in pairs if pair.found not in seen]
        begun = Outcome(
            outcome=NOTHING_NEW,
            why=f"{len(new)} new pairs, and {enough} are needed",
            name=options.name,
            new_pairs=len(new),
            production=production.number if production else None,
        )
        if len(new) < enough:
            return begun
        work = _work(options, environment, base, production, new)
        candidate, trained = fitted_version(work, options, environment, log, console, lease)
        begun = replace(begun, candidate=candidate.number, trained=trained)
        if candidate.number in {move.version for move in registry.history(options.registry, options.name)}:
            why = f"version {candidate.number} was production already, and was taken back"
            return replace(begun, outcome=REFUSED, why=why)
        result = contest.hold(candidate, production, work, environment)
        return _decided(options, begun, result, better_by)


def _production(options: Options) -> Version | None:
    if PRODUCTION not in registry.aliases(options.registry, options.name):
        return None
    return registry.resolve(options.registry, f"{options.name}@{PRODUCTION}")


def _as_before(options: Options, production: Version) -> Options:
    """What was not asked for otherwise is done as it was for production, if that was trained here and not imported."""
    options = replace(options, compact=production.about.get("compact"))
    if "training" not in production.about:
        return options
    settings = production.about["training"]["settings"]
    return replace(
        options,
        rank=options.rank or settings["rank"],
        rate=options.rate or settings["rate"],
        mirrored=settings["mirrored"],
        quantised=settings["quantised"],
        checkpointing=settings["checkpointing"],
        align=options.align or any("mended_from" in pair for pair in production.about["pairs"]),
    )


def _seen(production: Version | None) -> set[tuple[str, ...]]:
    """Files of every pair that production was trained with, held out from or judged by."""
    pairs = production.about["pairs"] if production else []
    return {tuple(pair.get("mended_from") or (pair["before_sha256"], pair["after_sha256"])) for pair in pairs}


def _work(
    options: Options, environment: Environment, base: str | None, production: Version | None, new: Sequence[Pair]
) -> Work:
    """Train on what production knows and most of what is new; judge by the rest of what is new."""
    ordered = sorted(new, key=lambda pair: pair.digest)
    judged = ordered[: min(MOST_JUDGED, max(1, len(new) // JUDGED_ONE_IN))]
    known = contest.pairs_of(production, environment.max_pixels) if production else []
    told = bases.settings_of(bases.find_base(base))
    work = work_for(options, environment, [*known, *ordered[len(judged) :]], base, told)
    return replace(work, judged=tuple(judged))


def _decided(options: Options, begun: Outcome, result: contest.Result, better_by: float) -> Outcome:
    rival = f"production, version {begun.production}," if begun.production else "the base alone"
    told = f"version {begun.candidate} scores {result.candidate:.2f} dB, {rival} {result.rival:.2f}"
    told += f" on {len(result.judged)} pairs that neither has seen"
    outcome = replace(
        begun, judged=result.judged, score=round(result.candidate, 4), rival=round(result.rival, 4), outcome=REFUSED
    )
    if not result.candidate >= result.rival + better_by:
        return replace(outcome, why=f"{told}: not better by {better_by:g} dB")
    try:
        assert begun.candidate is not None
        registry.promote(options.registry, options.name, begun.candidate, why=told, expected=begun.production)
    except AliasMoved as error:
        return replace(outcome, why=f"{told}, but {error}")
    return replace(outcome, outcome=PROMOTED, why=told)
