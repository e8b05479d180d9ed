"""What a job is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.tuning import PLAIN, Tuning


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `edit-transfer apply` was asked for. Paths and URIs as given; None means the default."""

    pairs: Sequence[tuple[str, str]]
    input: str
    output: str
    adapters: Sequence[str] = ()
    scale: float = 1.0
    registry: str | None = None
    base: str | None = None
    prompt: str | None = None
    workers: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    seed: int = 0
    format: str | None = None
    restore: bool = False
    limit: int | None = None
    fresh: bool = False
    retry_failed: bool = False
    stage: bool = False
    wait: bool = False
    price_per_hour: float | None = None
    tuned: Tuning = PLAIN
