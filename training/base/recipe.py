"""How the bundled base was made, from nothing: its autoencoder, then phases of its transformer.

Each phase goes on from what the one before it left; where its sizes are larger, the transformer is widened so that it
computes the same (`widen.py`). `python -m training.base.grow` runs one of them, or all that lead to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.transfer.layout import Grid


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """Training of the decoder; the encoder is written down. `batch` images a step, `rate` falls to zero at the end."""

    steps: int
    batch: int
    rate: float
    ema: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Size and diet of a transformer for a while.

    after            the phase it goes on from; None begins with random weights
    panel            side of a square panel in px
    heads, single    attention heads, and single-stream blocks after the double-stream one
    grids            sets of panel shapes in tokens of 16 px, each of equal token count; the first is drawn most often
    shares           tuples of each family in the batch of one process
    drawn_together   steps whose batches are drawn at once
    tuples           when it is over, if no number of minutes is given
    rate             learning rate, which rises over `warmup` steps and falls to zero over the last `cooldown` of the
                     phase, a share of its tuples or minutes
    muon             whether Muon updates the matrices inside blocks; AdamW updates all else
    ema              decay of the averaged weights, which are the base
    tell_every       steps between two lines of the log
    keep_seconds     between two checkpoints, each with a base beside it
    look_cases       of each family, when all are scored at the end
    """

    after: str | None
    panel: int
    heads: int
    single: int
    grids: tuple[tuple[Grid, ...], ...]
    shares: dict[str, int]
    drawn_together: int = 1
    tuples: int
    rate: float
    warmup: int = 200
    cooldown: float = 0.25
    muon: bool = True
    ema: float = 0.999
    tell_every: int = 100
    keep_seconds: float = 60.0
    look_cases: int = 16

    @property
    def batch(self) -> int:
        """Tuples of a step in each process."""
        return sum(self.shares.values())


SIXTEEN, FIFTEEN = ((4, 4), (4, 4), (2, 8), (8, 2)), ((3, 5), (5, 3))
SIXTY_FOUR = ((8, 8), (8, 8), (4, 16), (16, 4))

AUTOENCODER = Autoencoder(steps=1300, batch=36, rate=1.5e-3, ema=0.998)

_FLAT = {"recolour": 5, "add": 4, "remove": 7, "translate": 9, "background": 2, "tone": 2, "scale": 1}

MINIATURE = {
    # Two CPU cores, about four hours. A person changed the shares on the way, as the base's card tells; these are the
    # last ones.
    "small": Phase(
        after=None,
        panel=64,
        heads=8,
        single=7,
        grids=(SIXTEEN, FIFTEEN),
        shares=_FLAT | {"background+recolour": 1, "add+tone": 1},
        tuples=632_000,
        rate=1.5e-3,
    ),
    # Two CPU cores: four times the tokens. Its shares and rate were not kept; these are like those of the next phase.
    "fine": Phase(
        after="small",
        panel=128,
        heads=8,
        single=7,
        grids=(SIXTY_FOUR,),
        shares={
            "background": 1,
            "tone": 1,
            "recolour": 2,
            "add": 3,
            "remove": 3,
            "translate": 3,
            "rotate": 4,
            "scale": 3,
            "mirror": 3,
            "viewpoint": 3,
            "pose": 3,
            "bend": 2,
            "background+recolour": 1,
        },
        tuples=55_232,
        rate=6e-4,
    ),
    # One H200, 466 s after compilation, 4,600 tuples a second: every family. In 15 % of the scenes a crop of a training
    # photograph (contrast 0.35 to 1) stood behind the object, before and after alike.
    "wide": Phase(
        after="fine",
        panel=128,
        heads=12,
        single=7,
        grids=(SIXTY_FOUR,),
        shares={
            "background": 20,
            "tone": 20,
            "recolour": 34,
            "add": 40,
            "remove": 40,
            "translate": 52,
            "rotate": 56,
            "scale": 48,
            "mirror": 42,
            "viewpoint": 40,
            "pose": 48,
            "bend": 28,
            "background+recolour": 8,
            "background+translate": 12,
            "recolour+scale": 16,
            "add+tone": 8,
        },
        drawn_together=8,
        tuples=2_125_312,
        rate=2e-3,
        warmup=100,
        cooldown=0.4,
        ema=0.998,
    ),
    # One CPU core, 94 minutes: edits about the object's own middle wherever it stands, then the scenes as they are now.
    # The first 2,880 tuples still had the plain scenes and no edits of the whole picture; a step took a quarter of
    # these tuples, in float32, Muon's orthogonalisation too. The bundled weights are half way between these and those
    # of the phase before.
    "general": Phase(
        after="wide",
        panel=128,
        heads=12,
        single=7,
        grids=(SIXTY_FOUR,),
        shares={
            "background": 3,
            "tone": 2,
            "recolour": 3,
            "add": 4,
            "remove": 4,
            "translate": 5,
            "rotate": 6,
            "scale": 4,
            "mirror": 5,
            "viewpoint": 3,
            "pose": 4,
            "bend": 3,
            "turn": 1,
            "zoom": 1,
            "pan": 1,
            "flip": 1,
            "background+recolour": 1,
            "background+translate": 1,
            "recolour+scale": 1,
            "add+tone": 1,
        },
        tuples=6_500,
        rate=6e-4,
        warmup=15,
        cooldown=0.3,
        ema=0.99,
    ),
}

DRY_RUNS = {
    # from nothing, in seconds
    "tiny": Phase(
        after=None,
        panel=64,
        heads=2,
        single=1,
        grids=(SIXTEEN,),
        shares={"background": 3, "tone": 2, "pose": 1},
        tuples=240,
        rate=1.5e-3,
        tell_every=5,
        keep_seconds=1.0,
        look_cases=2,
    ),
    # from the bundled base, made larger; without Muon, which takes most of a step so small
    "dry": Phase(
        after="wide",
        panel=64,
        heads=13,
        single=8,
        grids=(SIXTEEN,),
        shares={"background": 1, "translate": 1, "mirror": 1},
        tuples=24,
        rate=6e-4,
        warmup=4,
        muon=False,
        tell_every=1,
        keep_seconds=1.0,
        look_cases=1,
    ),
}

PHASES = MINIATURE | DRY_RUNS
LAST = list(MINIATURE)[-1]


def leading_to(name: str) -> Iterator[str]:
    """The names of all phases from nothing to `name`."""
    if before := PHASES[name].after:
        yield from leading_to(before)
    yield name
