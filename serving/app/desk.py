"""From what a request asks for to works for an engine, and from results to files. No HTTP in here."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeVar

from PIL import Image

from infra.errors import RequestError, about
from pipelines import adapters, codec
from pipelines.adapters import Worn
from pipelines.catalog.variants import decoded, decoded_pair
from pipelines.catalog.work import recipe_of, sha256
from pipelines.restore import Draft, finished
from pipelines.texts import Texts
from pipelines.transfer import check_framing, fitted, resized
from serving.app.directory import Directory
from serving.app.options import Limits
from serving.app.room import Room
from serving.engine.request import Description, Digests, Edited, Work

T = TypeVar("T")
Pairs = tuple[tuple[Image.Image, Image.Image], ...]
SEEDS = 2**63  # a noise seed is below
EXEMPLARS_KEPT = 64
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff",
               "BMP": "image/bmp", "GIF": "image/gif", "AVIF": "image/avif"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What a request calls its parts, for errors to name them; {} in those of a pair is its place among the pairs."""

    query: str = "query"
    adapter: str = "adapter"
    pairs: str = "before"
    before: str = "before"
    after: str = "after"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request asks for. Files are bytes, `pairs` inline ones; `count` results with seeds that follow.

    fields   where in the request it is
    size     (width, height) of the results, None for the query's own
    format   of the results, None for the query's own (JPEG for HEIC)
    restore  results in full resolution, with the query's untouched pixels
    seconds  it may take from `began` on, on the clock of `time.monotonic`
    """

    query: bytes
    seconds: float
    began: float
    fields: Fields = Fields()
    pairs: Sequence[tuple[bytes, bytes]] = ()
    adapter: str | None = None
    scale: float = 1.0
    seed: int | None = None
    count: int = 1
    steps: int | None = None
    size: tuple[int, int] | None = None
    format: str | None = None
    restore: bool = False
    previews: bool = False
    tenant: str = ""


@dataclass(frozen=True)
class Order:
    """A request that can be done: one work for each result."""

    photo: codec.Photo
    worn: Worn | None
    works: list[Work]
    format: str | None


@dataclass(frozen=True)
class Result:
    """One result as a file, and what is known of it."""

    data: bytes
    media_type: str
    size: tuple[int, int]
    seed: int
    scores: dict[str, float]
    edited: Edited


class Desk:
    """Decodes, checks, encodes, in some threads of its own."""

    def __init__(self, directory: Directory, description: Description, max_pixels: int, limits: Limits) -> None:
        self.directory, self.description, self.max_pixels = directory, description, max_pixels
        self._threads = ThreadPoolExecutor(limits.decoding, "images")
        self._room = Room(limits.open_pixels)
        self._exemplars: OrderedDict[str, Pairs] = OrderedDict()

    @property
    def base(self) -> str:
        """The name of the base, without the folder where it is."""
        return base_name(self.description.base)

    @asynccontextmanager
    async def order(self, ask: Ask) -> AsyncIterator[Order]:
        """Find the adapter, decode the images, derive the seeds. While the block lasts, the images have their room.

        Raises AdapterNotFound, AdapterDamaged, UsageError, PairError, ImageError, StoreUnavailable.
        """
        with about(ask.fields.adapter):
            worn = await self.directory.find(ask.adapter, ask.scale) if ask.adapter else None
            own = adapters.exemplar_digests([worn]) if worn else []
            exemplars = await self._exemplars_of(worn) if worn and ask.pairs else ()
        if not own and not ask.pairs:
            raise RequestError(_no_pairs(worn), ask.fields.pairs)
        with about(ask.fields.query):
            header = await self.aside(lambda: codec.read_header(ask.query, self.max_pixels))
        async with self._room.taken(header.width * header.height):
            yield await self.aside(lambda: self._order(ask, worn, own, exemplars))

    def _order(self, ask: Ask, worn: Worn | None, own: Sequence[tuple[str, str]], exemplars: Pairs) -> Order:
        with about(ask.fields.query):
            photo = codec.decode(ask.query, self.max_pixels)
            query = self._fit(photo.image)
        shown = tuple((sha256(before), sha256(after)) for before, after in ask.pairs)
        pairs = exemplars + tuple(self._inline(ask.fields, at, pair) for at, pair in enumerate(ask.pairs))
        work = Work(
            query=query,
            seed=0,
            worn=worn,
            pairs=pairs,
            shown=(*own, *shown) if pairs else (),
            steps=ask.steps,
            tenant=ask.tenant,
            seconds=max(0.001, ask.seconds - (time.monotonic() - ask.began)),
            previews=ask.previews,
            coded=ask.restore,
        )
        seeds = self._seeds(ask, worn, (*own, *shown))
        if ask.size:
            photo = _as_large(photo, ask.size)
        return Order(photo, worn, [replace(work, seed=seed) for seed in seeds], ask.format)

    def _seeds(self, ask: Ask, worn: Worn | None, shown: Digests) -> list[int]:
        """The noise seeds: as given and those that follow, or what a job would take for this image."""
        if ask.seed is not None:
            return [(ask.seed + number) % SEEDS for number in range(ask.count)]
        run, digest = self.description, sha256(ask.query)
        text = Texts(base=run.text).of([worn] if worn else [])
        recipe = recipe_of(
            [worn] if worn else [],
            shown,
            base=run.base,
            revision=run.revision,
            attention=run.attention,  # type: ignore[arg-type]  # from the base's own settings
            max_area=run.max_area,
            steps=ask.steps or run.steps,
            prompt=text.sha256 if text else None,
            tuning=run.tuning,
        )
        return [replace(recipe, seed=number).seed_for(digest) for number in range(ask.count)]

    async def _exemplars_of(self, worn: Worn) -> Pairs:
        digest = worn.version.digest
        if digest not in self._exemplars:
            files = await self.directory.look(lambda _: adapters.exemplars([worn]))
            self._exemplars[digest] = await self.aside(lambda: self._decoded(files))
        self._exemplars.move_to_end(digest)
        if len(self._exemplars) > EXEMPLARS_KEPT:
            self._exemplars.popitem(last=False)
        return self._exemplars[digest]

    def _inline(self, fields: Fields, at: int, pair: tuple[bytes, bytes]) -> tuple[Image.Image, Image.Image]:
        names = fields.before.format(at), fields.after.format(at)
        images = []
        for name, data in zip(names, pair, strict=True):
            with about(name):
                images.append(decoded(f"pair {at + 1}", data, self.max_pixels))
        with about(names[1]):
            return self._fitted((images[0], images[1]))

    def _decoded(self, files: Sequence[tuple[str, bytes, bytes]]) -> Pairs:
        return tuple(self._fitted(decoded_pair(file, self.max_pixels)) for file in files)

    def _fitted(self, pair: tuple[Image.Image, Image.Image]) -> tuple[Image.Image, Image.Image]:
        check_framing(*pair)
        return self._fit(pair[0]), self._fit(pair[1])

    def _fit(self, image: Image.Image) -> Image.Image:
        return fitted(image, self.description.multiple, self.description.max_area)

    async def result(self, order: Order, work: Work, edited: Edited) -> Result:
        """The result as a file."""
        return await self.aside(lambda: _result(order, work, edited))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do some work on images in another thread; a few do at a time, the next wait."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _result(order: Order, work: Work, edited: Edited) -> Result:
    photo = order.photo
    draft = Draft(edited.image, work.query, edited.coded)
    image, told = finished(photo.image, draft if work.coded else resized(edited.image, photo.image.size))
    return Result(
        data=codec.encode(photo, image, order.format),
        media_type=MEDIA_TYPES[codec.written_format(photo.format, order.format)],
        size=image.size,
        seed=work.seed,
        scores=told,
        edited=edited,
    )


def _as_large(photo: codec.Photo, size: tuple[int, int]) -> codec.Photo:
    """The photo in another size. Raises UsageError for other proportions."""
    width, height = photo.image.size
    if abs((size[0] / size[1]) / (width / height) - 1) > 0.05:
        raise RequestError(
            f"`size` is {size[0]}x{size[1]}, but the image is {width}x{height}: a result has the proportions of its"
            ' image. Leave `size` out, or say "auto".',
            "size",
        )
    alpha = photo.alpha and resized(photo.alpha, size)
    return replace(photo, image=resized(photo.image, size), alpha=alpha)


def _no_pairs(worn: Worn | None) -> str:
    if worn:
        return f"{worn.version.ref} has no pair of its own to show its edit: send one, before and after."
    return "There is no pair to learn the edit from: name an adapter, or send a before and an after image."


def base_name(base: str) -> str:
    """A Hub id as it is; of a folder its last part."""
    return PurePath(base).name if base.startswith(("/", ".", "~")) else base


def facts(worn: Worn | None) -> dict[str, Any] | None:
    """What answers tell of the adapter, None without one."""
    if worn is None:
        return None
    version = worn.version
    return {"name": version.name, "version": version.number, "digest": version.digest, "scale": worn.scale}
