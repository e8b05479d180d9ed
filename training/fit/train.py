"""`edit-transfer train` from its options to a published version."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra import registry, store
from infra.errors import LeaseHeld
from infra.registry import PRODUCTION, Lease, Version
from infra.settings import Settings as Environment
from pipelines.pairs.check import Checked, Pair, check_pairs, usable
from pipelines.transfer import bases
from training.fit import run
from training.fit.judge import hold_out
from training.fit.options import Options, settings_for
from training.fit.publishing import Work, publish
from training.fit.rehearsal import kept_pairs
from training.fit.watch import Watch
from training.fit.worker import Order

LEASE_SECONDS = 60


@dataclass(frozen=True)
class Trained:
    """What came of it: the version, whether it is a new one, and whether it became production."""

    version: Version
    new: bool
    promoted: bool


def prepare(options: Options, environment: Environment, show: Callable[[list[Checked]], None]) -> Work:
    """Check name, base and pairs; `show` gets the verdicts. Raises a UsageError of some kind."""
    registry.versions(options.registry, options.name)  # a bad name, or a registry out of reach
    base = base_of(options, environment)
    told = bases.settings_of(bases.find_base(base))
    checked = check_pairs(options.pairs, environment.max_pixels, options.align)
    show(checked)
    pairs = usable(checked, options.pairs)
    return work_for(options, environment, pairs, base, told)


def base_of(options: Options, environment: Environment) -> str | None:
    """The base, a folder by its absolute path: workers run elsewhere."""
    base = options.base or environment.base
    return str(Path(base).resolve()) if base and Path(base).is_dir() else base


def work_for(
    options: Options, environment: Environment, pairs: list[Pair], base: str | None, told: bases.BaseSettings
) -> Work:
    """The work of training on these pairs."""
    return Work(
        name=options.name,
        base=base,
        settings=settings_for(options, pairs, told, environment.ray),
        pairs=tuple(pairs),
        kept=tuple(kept_pairs(options.keep, told, environment.max_pixels)),
    )


def train(work: Work, options: Options, environment: Environment, log: Path, console: Console) -> Trained:
    """Fit, publish, and promote if it is the first. The same work done before is not done again.

    Raises:
        LeaseHeld: this adapter is being trained already.
        EditTransferError: the training broke; the same work goes on where it stopped.
    """
    with registry.lease(options.registry, options.name, "training", LEASE_SECONDS) as lease:
        version, new = fitted_version(work, options, environment, log, console, lease)
        return Trained(version, new, promoted=_promote_first(options, version))


def fitted_version(
    work: Work, options: Options, environment: Environment, log: Path, console: Console, lease: Lease
) -> tuple[Version, bool]:
    """The version that this work leads to, and whether it had to be made.

    Raises:
        LeaseHeld: somebody else took over meanwhile, because this process was stopped for too long.
    """
    publication, place = work.publication, store.join(options.registry, options.name, "runs")
    checkpoints = store.join(place, publication[:16])
    for version in registry.versions(options.registry, options.name):
        if version.about.get("publication") == publication:
            run.forget(checkpoints)
            return version, False
    began = time.monotonic()
    with Watch(log, work.settings.steps, bool(hold_out(work.pairs)), console) as watch:
        fitted = run.fit(_order(work), place, publication[:16], watch, environment.ray)
    if lease.lost.is_set():
        raise LeaseHeld(f"Another process trains {options.name} by now: this one was stopped for too long.")
    version = publish(options.registry, work, fitted, time.monotonic() - began)
    run.forget(checkpoints)
    return version, True


def _order(work: Work) -> Order:
    from infra.cluster import cores

    side = math.isqrt(bases.settings_of(bases.find_base(work.base)).max_area) * 2
    return Order(
        base=work.base,
        pairs=tuple(pair.shrunk(side) for pair in work.pairs),
        kept=tuple(pair.shrunk(side) for pair in work.kept),
        settings=work.settings,
        device="cpu",
        threads=max(1, cores() // work.settings.workers),
    )


def _promote_first(options: Options, version: Version) -> bool:
    if PRODUCTION in registry.aliases(options.registry, options.name):
        return False
    registry.promote(options.registry, options.name, version.number, why="the first version", expected=None)
    return True
