"""What passes between the app and an engine. All of it can be pickled."""

from dataclasses import dataclass, field

from PIL import Image

from pipelines.adapters import Worn
from pipelines.texts import Text

Digests = tuple[tuple[str, str], ...]  # sha256 of the before and the after file of each pair


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an engine runs. `multiple` and `max_area` decide the size at which images go through the model.

    `text` is the prompt embeddings that the base brings, None for none; `tuning` what of how it is run changes results.
    """

    base: str
    revision: str
    attention: str
    steps: int
    max_area: int
    multiple: int
    text: Text | None = None
    tuning: str | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """One image to edit.

    query     RGB, at working size (`pipelines.transfer.fitted`)
    worn      the adapter with its scale, None for the base alone
    pairs     inline pairs at working size, () for the adapter's own exemplars
    shown     digests of those pairs' files
    seed      of the noise, 0 to 2**63 - 1
    steps     denoising steps, None for the base's own
    tenant    whose request it is: the engine is fair between tenants, and between the adapters of each
    seconds   how long it may take from now on, None for as long as it takes
    previews  whether progress shows what the result looks like so far
    coded     whether the query is wanted through the base's autoencoder and back, to restore full resolution with
    """

    query: Image.Image
    seed: int
    worn: Worn | None = None
    pairs: tuple[tuple[Image.Image, Image.Image], ...] = ()
    shown: Digests = ()
    steps: int | None = None
    tenant: str = ""
    seconds: float | None = None
    previews: bool = False
    coded: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A step is done: `step` of `steps`."""

    step: int
    steps: int
    preview: Image.Image | None = None


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A result, at the query's working size.

    coded          the query through the base's autoencoder and back, None unless it was wanted
    prefix_cached  whether the keys and values of its pairs were there already
    timings        seconds: `wait` until it joined the batch, `prepare` adapter, pairs and query, `steps`, `decode`
    batch          mean number of requests that shared its steps
    """

    image: Image.Image
    prefix_cached: bool
    coded: Image.Image | None = None
    timings: dict[str, float] = field(default_factory=dict)
    batch: float = 1.0
