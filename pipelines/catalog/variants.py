"""The edits of one job: its own, and those that rows of a table ask for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from infra import store
from infra.errors import EditTransferError, ImageError, PairError, StoreError, StoreUnavailable, UsageError
from pipelines import adapters, codec
from pipelines.catalog.listing import AS_THE_REST, Own
from pipelines.catalog.work import Variant, compact_of, sha256
from pipelines.texts import Texts, checked

if TYPE_CHECKING:
    from pipelines.transfer import Pair

VARIANTS_KEPT = 4096
ROUNDED = re.compile(r"[+-]?[\d.,]+e[+-]?\d+", re.IGNORECASE)
NO_SEED = {"", "nan", "null", "none", "na", "n/a", "#n/a", "<na>", "nil"}  # what tables write for a missing number


@dataclass(frozen=True)
class Edits:
    """What every row gets that asks for nothing else, and what is needed to make out what the others ask for.

    pairs     (before, after) of the job
    registry  address of the adapters, `scale` counts for all of them
    texts     what was asked for, and what the base brings
    base      as Editor.load takes it
    """

    usual: Variant
    pairs: Sequence["Pair"]
    registry: str
    scale: float
    max_pixels: int
    texts: Texts = field(default_factory=Texts)
    base: str | None = None

    def chooser(self) -> Callable[[Own], Variant]:
        """A function from what a row asks for to its edit; it remembers. It raises ImageError with `bad_override`."""

        @lru_cache(maxsize=VARIANTS_KEPT)
        def chosen(own: Own) -> Variant | ImageError:
            try:
                return self._variant(own)
            except StoreUnavailable:
                raise
            except EditTransferError as error:
                return ImageError(f"What its row asks for cannot be done: {error}", "bad_override")

        def choose(own: Own) -> Variant:
            if own == AS_THE_REST:
                return self.usual
            variant = chosen(own)
            if isinstance(variant, ImageError):
                raise variant
            return variant

        return choose

    def _variant(self, own: Own) -> Variant:
        recipe, usual = self.usual.recipe, self.usual
        worn, pairs, shown = usual.worn, usual.pairs, recipe.pairs
        if own.adapter:
            worn = tuple(adapters.find(self.registry, [own.adapter], self.scale, recipe.revision))
            shown = tuple((sha256(before), sha256(after)) for _, before, after in adapters.exemplars(worn))
            if not own.before and not shown:
                raise UsageError(f"{own.adapter} has no pair of its own; give the row a `before` and an `after`.")
        if bool(own.before) != bool(own.after):
            raise PairError("a row needs both `before` and `after`, or neither.")
        if own.before and own.after:
            pairs, shown = ((own.before, own.after),), (self._digests(own.before, own.after),)
        text = checked(own.prompt, self.base) if own.prompt else self.texts.of(worn)
        attention = next((each.attention for each in worn if each.attention), recipe.attention)
        changed = replace(
            recipe,
            pairs=shown,
            attention=attention,
            seed=_seed(own.seed, recipe.seed),
            prompt=text.sha256 if text else None,
            compact=compact_of(worn),
            **adapters.named(worn),
        )
        if attention != recipe.attention:
            raise UsageError(
                f"{own.adapter} was trained with {attention} attention, and this job runs {recipe.attention}."
            )
        return Variant(changed, worn, pairs, text)

    def _digests(self, before: str, after: str) -> tuple[str, str]:
        files = [store.read(uri) for uri in (before, after)]
        for uri, data in zip((before, after), files, strict=True):
            decoded(uri, data, self.max_pixels)
        return sha256(files[0]), sha256(files[1])

    def shown(self, variant: Variant) -> list["Pair"]:
        """The pairs that show this edit, decoded. Raises PairError, AdapterDamaged, StoreError."""
        if variant.recipe.pairs == self.usual.recipe.pairs:
            return list(self.pairs)
        own = [(f"{before}, {after}", store.read(before), store.read(after)) for before, after in variant.pairs]
        files = own or adapters.exemplars(variant.worn)
        if tuple((sha256(before), sha256(after)) for _, before, after in files) != variant.recipe.pairs:
            raise PairError(f"{files[0][0]}: this pair has changed since the job began; run it again.")
        return [decoded_pair(file, self.max_pixels) for file in files]


def decoded_pair(file: tuple[str, bytes, bytes], max_pixels: int) -> "Pair":
    """A pair from (name, before, after), as files. Raises PairError."""
    name, before, after = file
    return decoded(name, before, max_pixels), decoded(name, after, max_pixels)


def decoded(name: str, data: bytes, max_pixels: int) -> Image.Image:
    """An image of a pair. Raises PairError."""
    try:
        return codec.decode(data, max_pixels).image
    except ImageError as error:
        raise PairError(f"{name}: an image of this pair cannot be used: {error}") from None


def _seed(text: str | None, usual: int) -> int:
    """Any whole number; `7.0` is what a table makes of 7 once another row has none. `1.000` may be a thousand."""
    told = (text or "").strip()
    if told.casefold() in NO_SEED:
        return usual
    try:
        return int(re.sub(r"\.0{0,2}$", "", told))
    except ValueError:
        rounded = (
            " with all its digits; a float or a spreadsheet may have rounded it" if ROUNDED.fullmatch(told) else ""
        )
        raise UsageError(f"the seed {told[:60]!r} is no whole number{rounded}.") from None


def read_pairs(given: Sequence[tuple[str, str]]) -> list[tuple[str, bytes, bytes]]:
    """(name, before, after) of pairs given as addresses. Raises PairError."""
    return [(f"{before}, {after}", _read(before), _read(after)) for before, after in given]


def _read(uri: str) -> bytes:
    try:
        return store.read(uri)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise PairError(f"This image of the pair cannot be read: {error}") from None
