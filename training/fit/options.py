"""What `edit-transfer train` was asked for, and the settings that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from infra import cluster
from pipelines.transfer import bases
from training.fit.settings import Settings, usual_looks, usual_rank, usual_steps

if TYPE_CHECKING:
    from pipelines.pairs.check import Pair


@dataclass(frozen=True, kw_only=True)
class Options:
    """Paths and URIs as given; None means the default, which may follow from the base or the number of pairs."""

    name: str
    pairs: str
    base: str | None = None
    keep: str | None = None
    registry: str
    rank: int | None = None
    rate: float | None = None
    steps: int | None = None
    queries: int | None = None
    shown: int | None = None
    mirrored: bool = False
    workers: int | None = None
    precision: str | None = None
    quantised: str | None = None
    checkpointing: bool = False
    seed: int = 0
    compact: int | None = None
    align: bool = False


def settings_for(options: Options, pairs: Sequence[Pair], base: bases.BaseSettings, ray: str | None = None) -> Settings:
    """Settings: as asked for, else as usual for so many pairs on this base and the cluster at `ray`, or this machine.

    Raises:
        UsageError: what was asked for makes no sense.
        EditTransferError: no cluster answers.
    """
    gpus, cores = _hardware(ray)
    usual = {
        "rank": usual_rank(len(pairs)),
        "rate": base.adapter_rate,
        "steps": usual_steps(len(pairs), base.adapter_steps),
        "attention": base.attention,
        "workers": gpus or cores,
        "precision": "bfloat16" if gpus else "float32",
    }
    names = {field.name for field in fields(Settings)} & {field.name for field in fields(Options)}
    asked = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if asked.get("quantised", "none") != "none":
        asked["checkpointing"] = True  # or every pass would keep a copy of the weights in full for the backward pass
    chosen = usual | asked
    return Settings(**chosen, judge_every=usual_looks(chosen["steps"]))


def _hardware(ray: str | None) -> tuple[int, int]:
    """GPUs and CPU cores of a cluster, or of this machine."""
    if ray:
        with cluster.connected(1, ray) as resources:
            return int(resources.gpus), max(1, int(resources.cpus))
    import torch

    return torch.cuda.device_count(), cluster.cores()
