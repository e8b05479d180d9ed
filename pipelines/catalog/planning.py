"""`--plan`: in which ways a base fits a GPU, and which of them to take. Loads no weights and touches no catalog."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from infra import registry
from infra.errors import UsageError
from pipelines.adapters import strength_of
from pipelines.catalog.bench import LARGEST_BATCH, USUAL_BATCH
from pipelines.transfer import bases
from pipelines.transfer.footprint import RANK, Footprint, footprints, outlined
from pipelines.transfer.layout import Attention
from pipelines.transfer.tuning import FLOAT8_PRODUCTS
from pipelines.tuning import Tuning

GB = 10**9
CARDS = (24, 40, 80)  # GB, where there is no GPU
CONTEXT = GB  # for CUDA itself, its libraries and what their kernels work in
LOST = 0.04  # of a card, between the tensors

# From the best results and speed to the least memory; with tiles where that takes less.
WAYS = (
    Tuning(),
    Tuning(tiling=True),
    Tuning(weights="float8"),
    Tuning(weights="float8", tiling=True),
    Tuning(weights="int8"),
    Tuning(weights="int8", tiling=True),
    Tuning(weights="int4"),
    Tuning(weights="int4", tiling=True),
    Tuning(offload=True),
    Tuning(offload=True, tiling=True),
)


@dataclass(frozen=True)
class Card:
    """A GPU: bytes that are free on it, or that one is asked about. `name` where it is there."""

    memory: int
    name: str | None = None
    float8: bool = True  # whether it multiplies in FP8

    @property
    def reserve(self) -> int:
        """Bytes that no tensor gets."""
        return CONTEXT + int(LOST * self.memory)


@dataclass(frozen=True)
class Fit:
    """A way on a card. `largest` is the largest batch that fits, 0 for none; `batch` the one that was asked for, or
    that a job would begin with."""

    card: Card
    footprint: Footprint
    largest: int
    batch: int

    @property
    def fits(self) -> bool:
        return self.largest >= self.batch

    def total(self, batch: int) -> int:
        """Bytes of a batch, with the reserve."""
        return self.footprint.at(batch) + self.card.reserve

    def missing(self, batch: int) -> int:
        """Bytes that the card lacks for a batch."""
        return max(0, self.total(batch) - self.card.memory)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known of a base before it is loaded, and how it fits some cards.

    size     pixels, width and height, of the images that go through it
    ranks    of the LoRAs that it wears
    batch    images that are looked at together
    gpus     whether the cards are those at hand; asked: whether they were asked for
    fits     of each card the ways, the best first
    """

    base: str
    attention: Attention
    size: tuple[int, int]
    ranks: Sequence[int]
    batch: int
    gpus: bool
    asked: bool
    fits: Sequence[Sequence[Fit]]

    def told(self) -> dict[str, Any]:
        """What `--json` prints; all sizes are bytes, `fixed` and `each` those of a batch and of each image in it."""
        return {
            "base": self.base,
            "attention": self.attention,
            "size": self.size,
            "ranks": list(self.ranks),
            "batch_size": self.batch,
            "gpu_at_hand": self.gpus,
            "ways": [_footprint_told(fit.footprint) for fit in self.fits[0]],
            "cards": [self._card_told(fits) for fits in self.fits],
        }

    def _card_told(self, fits: Sequence[Fit]) -> dict[str, Any]:
        card, best = fits[0].card, recommended(fits)
        return {
            "name": card.name,
            "memory": card.memory,
            "reserve": card.reserve,
            "ways": [
                {
                    "way": way(fit.footprint.tuning),
                    "total": fit.total(self.batch),
                    "missing": fit.missing(self.batch),
                    "largest_batch": fit.largest,
                }
                for fit in fits
            ],
            "recommended": best and {"flags": flags(best), "reason": reason(best)},
        }


def _footprint_told(footprint: Footprint) -> dict[str, Any]:
    return {"way": way(footprint.tuning)} | {
        name: value for name, value in asdict(footprint).items() if name != "tuning"
    }


def plan(base: str | None, adapters: Sequence[str], address: str, batch: int | None, memory: Sequence[float]) -> Plan:
    """How a base, wearing these adapters of a registry (else one of rank `RANK`), fits GPUs of so many GB, or those at
    hand, or else `CARDS`.

    Raises:
        BaseNotFound, AdapterNotFound: there is no such base or adapter, or the base's configuration makes no models.
        UsageError: no such amount of memory.
    """
    here = [] if memory else at_hand()
    cards = here or [_card(size) for size in memory or CARDS]
    folder = bases.find_base(base, weights=False)
    worn = [registry.resolve(address, strength_of(ref, 1)[0]).about for ref in adapters] or [{}]
    ranks = [about.get("rank") or RANK for about in worn]
    outline = outlined(
        folder,
        ranks=ranks,
        attention=worn[0].get("attention"),
        compact=worn[0].get("compact", 1),
        pairs=sum(len(about.get("exemplars", ())) for about in worn) or 1,
    )
    ways = _sensible(footprints(outline, WAYS))
    return Plan(
        base=base or folder.name,
        attention=outline.attention,
        size=outline.size,
        ranks=ranks,
        batch=batch or 1,
        gpus=bool(here),
        asked=bool(memory),
        fits=[[_fit(card, each, batch) for each in ways] for card in cards],
    )


def at_hand() -> list[Card]:
    """The GPUs of this machine; of equal ones that which has least memory free, for every worker must fit."""
    found: dict[str, Card] = {}
    for index in range(torch.cuda.device_count()):
        name, free = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[0]
        if name not in found or free < found[name].memory:
            found[name] = Card(free, name, torch.cuda.get_device_capability(index) >= FLOAT8_PRODUCTS)
    return list(found.values())


def _card(size: float) -> Card:
    if not math.isfinite(size):
        raise UsageError("--memory takes the GB of a GPU, as in --memory 24.")
    return Card(int(size * GB))


def _sensible(ways: Sequence[Footprint]) -> list[Footprint]:
    """Without those whose tiles save nothing."""
    plain = {(way.tuning.weights, way.tuning.offload): way for way in ways if not way.tuning.tiling}
    return [
        way for way in ways if not way.tuning.tiling or way.at(1) < plain[way.tuning.weights, way.tuning.offload].at(1)
    ]


def _fit(card: Card, footprint: Footprint, batch: int | None) -> Fit:
    largest = footprint.largest(card.memory - card.reserve, max(LARGEST_BATCH, batch or 1))
    return Fit(card, footprint, largest, batch or max(1, min(largest, USUAL_BATCH)))


def recommended(fits: Sequence[Fit]) -> Fit | None:
    """The best way that fits a card."""
    able = (fit for fit in fits if fit.card.float8 or fit.footprint.tuning.weights != "float8")
    return next((fit for fit in able if fit.fits), None)


def way(tuning: Tuning) -> str:
    """What people call it."""
    weights = "bfloat16" if tuning.weights == "full" else tuning.weights
    return weights + ", offload" * tuning.offload + ", tiling" * tuning.tiling


def flags(fit: Fit) -> str:
    """What to give `apply`. No batch size where the usual one fits, which grows by itself as far as it can."""
    tuning = fit.footprint.tuning
    weights = "" if tuning.weights == "full" else f" --weights {tuning.weights}"
    small = f" --batch-size {fit.batch}" if fit.batch != USUAL_BATCH else ""
    return (weights + " --offload" * tuning.offload + " --tiling" * tuning.tiling + small).strip()


def reason(fit: Fit) -> str:
    """Why a way fits, in a sentence."""
    footprint, batch, card = fit.footprint, fit.batch, fit.card
    worst = footprint.worst(batch)
    parts = (
        f"{way(footprint.tuning)} weights {gb(footprint.weights)} GB",
        f"keys and values {gb(footprint.kept(worst, batch))}",
        f"{PASSES[worst]} {gb(footprint.passes[worst].at(batch))}",
        f"kept free {gb(card.reserve)}",
    )
    return f"{' + '.join(parts)} = {gb(fit.total(batch))} of {card.memory / GB:.3g} GB: batch {batch} fits."


PASSES = {
    "pair": "the pair's pass",
    "query": "the queries' pass",
    "step": "a step",
    "encode": "encoding",
    "decode": "decoding",
}


def gb(size: int) -> str:
    """Bytes for people, in GB of 10^9."""
    return f"{size / GB:.2f}"
