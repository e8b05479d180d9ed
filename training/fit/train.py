"""`edit-transfer train` from its options to a published version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra import registry, store
from infra.errors import StoreError
from infra.registry import PRODUCTION, Version
from infra.settings import Settings as Environment
from pipelines.catalog.listing import canonical
from pipelines.transfer import bases
from training.fit import run
from training.fit.judge import hold_out
from training.fit.options import Options, settings_for
from training.fit.publishing import Work, publish
from training.fit.rehearsal import kept_pairs
from training.fit.watch import Watch
from training.fit.worker import Order
from training.pairs.check import Checked, Pair, check_pairs, usable

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
    base = options.base or environment.base
    told = bases.settings_of(bases.find_base(base))
    checked = check_pairs(options.pairs, environment.max_pixels)
    show(checked)
    pairs = usable(checked, options.pairs)
    return work_for(options, environment, pairs, base, told)


def work_for(
    options: Options, environment: Environment, pairs: list[Pair], base: str | None, told: bases.BaseSettings
) -> Work:
    """The work of training on these pairs."""
    return Work(
        name=options.name,
        base=base,
        settings=settings_for(options, pairs, told),
        pairs=tuple(pairs),
        kept=tuple(kept_pairs(options.keep, told, environment.max_pixels)),
    )


def train(work: Work, options: Options, environment: Environment, log: Path, console: Console) -> Trained:
    """Fit, publish, and promote if it is the first. The same work done before is not done again.

    Raises:
        LeaseHeld: this adapter is being trained already.
        EditTransferError: the training broke; the same work goes on where it stopped.
    """
    with registry.lease(options.registry, options.name, "training", LEASE_SECONDS):
        version, new = fitted_version(work, options, environment, log, console)
        return Trained(version, new, promoted=_promote_first(options, version))


def fitted_version(
    work: Work, options: Options, environment: Environment, log: Path, console: Console
) -> tuple[Version, bool]:
    """The version that this work leads to, and whether it had to be made; to be called under the lease."""
    publication = work.publication
    for version in registry.versions(options.registry, options.name):
        if version.about.get("publication") == publication:
            return version, False
    began, place = time.monotonic(), _place(options)
    with Watch(log, work.settings.steps, bool(hold_out(work.pairs)), console) as watch:
        fitted = run.fit(_order(work), place, publication[:16], watch, environment.ray)
    version = publish(options.registry, work, fitted, time.monotonic() - began)
    _forget(store.join(place, publication[:16]))
    return version, True


def _order(work: Work) -> Order:
    from infra.cluster import cores

    return Order(
        base=work.base,
        pairs=work.pairs,
        kept=work.kept,
        settings=work.settings,
        threads=max(1, cores() // work.settings.workers),
    )


def _place(options: Options) -> str:
    return store.join(canonical(options.registry), options.name, "runs")


def _forget(uri: str) -> None:
    """Remove the checkpoints of a training that is published."""
    filesystem, path = store.arrow(uri)
    try:
        filesystem.delete_dir(path)
    except OSError as error:
        raise StoreError(f"{uri}: the checkpoints cannot be removed ({error}).") from None


def _promote_first(options: Options, version: Version) -> bool:
    if PRODUCTION in registry.aliases(options.registry, options.name):
        return False
    registry.promote(options.registry, options.name, version.number, why="the first version", expected=None)
    return True
