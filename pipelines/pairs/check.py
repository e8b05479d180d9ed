"""Which pairs can be used, and why not the others."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from infra import store
from infra.errors import ImageError, NotInStore, PairError
from pipelines import codec
from pipelines.pairs.alignment import Alignment, measure
from pipelines.pairs.mending import mend
from pipelines.pairs.noise import noise_alone
from pipelines.pairs.source import Found, find_pairs
from pipelines.transfer import check_framing
from pipelines.transfer.layout import working_size

TOKEN = 16  # pixels: the smallest side that any base takes
LARGEST_SIDE = 2048  # pixels; larger pictures are shrunk as soon as they are read
CHANGED = 12  # levels out of 255 by which a channel must move for a pixel to count as changed
LEAST_CHANGED = 0.0005  # of the pixels; below, a pair shows no edit
THUMBNAIL = 16  # pixels of the side at which pairs are compared with each other
ALIKE = 12  # levels out of 255 by which thumbnails of near-duplicates differ at most


@dataclass(frozen=True)
class Pair:
    """A usable pair: RGB pictures, where they are and the SHA-256 of their files.

    The files of a mended pair are those that `files` writes; `mended` is the SHA-256 of those that it was mended from.
    """

    name: str
    edit: str
    before: Image.Image
    after: Image.Image
    uris: tuple[str, str]
    sha256: tuple[str, str]
    mended: tuple[str, str] | None = None

    @property
    def found(self) -> tuple[str, str]:
        """The SHA-256 of the files as they were found."""
        return self.mended or self.sha256

    def files(self) -> tuple[bytes, bytes]:
        """Both pictures as PNG files."""
        return _png(self.before), _png(self.after)

    @property
    def digest(self) -> str:
        """Names the pair by its content and its edit."""
        return hashlib.sha256(" ".join((*self.sha256, self.edit)).encode()).hexdigest()

    def shrunk(self, side: int) -> Pair:
        """The same pair with pictures of at most `side` pixels each way."""
        pictures = [image.copy() for image in (self.before, self.after)]
        for image in pictures:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return replace(self, before=pictures[0], after=pictures[1])


@dataclass(frozen=True)
class Checked:
    """What became of one pair: `pair` if it can be used, else a `code` and the reason; `note` for what was mended or
    would be, `seen` for the pictures as far as they could be read, `alignment` as it was found, if it can be told.

    Codes: no_before, no_after, ambiguous, unreadable, too_small, framing, no_change, only_noise, duplicate,
    near_duplicate.
    """

    name: str
    edit: str
    pair: Pair | None = None
    code: str | None = None
    reason: str | None = None
    note: str | None = None
    seen: tuple[Image.Image | None, ...] = ()
    alignment: Alignment | None = None


def check_pairs(source: str, max_pixels: int, align: bool = False) -> list[Checked]:
    """Read and check every pair of a folder, prefix or table; `align` mends what is shifted, zoomed or turned.

    Raises:
        PairError: there are no pairs at all.
        StoreError: the place does not answer.
    """
    return check_found(find_pairs(source), max_pixels, align)


def check_found(found: Sequence[Found], max_pixels: int, align: bool = False) -> list[Checked]:
    """Read and check pairs wherever they were found. Raises StoreError where a place does not answer."""
    return _without_duplicates([_checked(each, max_pixels, align) for each in found])


def usable(checked: Sequence[Checked], source: str) -> list[Pair]:
    """The pairs that can be used. Raises `PairError` where there is none, naming the first reason."""
    pairs = [each.pair for each in checked if each.pair]
    if not pairs:
        first = checked[0]
        raise PairError(f"{source}: none of {len(checked)} pairs can be used. {first.name}: {first.reason}")
    return pairs


def _checked(found: Found, max_pixels: int, align: bool) -> Checked:
    seen: list[Image.Image | None] = [None, None]
    refusal: ImageError | None = None
    shas = []
    for side, (role, uris) in enumerate((("before", found.before), ("after", found.after))):
        try:
            seen[side], sha = _read(_only(role, uris), max_pixels)
            shas.append(sha)
        except ImageError as error:
            refusal = refusal or error
    before, after = seen
    told = Checked(found.name, found.edit, seen=tuple(seen))
    try:
        if refusal or not (before and after):
            raise refusal or AssertionError
        after, note = _alike_in_size(before, after)
        pair = Pair(found.name, found.edit, before, after, (found.before[0], found.after[0]), (shas[0], shas[1]))
        return _compared(replace(told, pair=pair, note=note), align)
    except ImageError as error:
        return replace(told, code=error.code, reason=str(error))


def _compared(told: Checked, align: bool) -> Checked:
    """The same with how its pictures lie against each other, mended if need be. Raises `ImageError` without an edit."""
    pair = told.pair
    assert pair
    _check_change(pair.before, pair.after)
    alignment, resampled = measure(pair.before, pair.after), False
    if alignment and alignment.off and align:
        before, after, resampled = mend(pair.before, pair.after, alignment)
        _check_change(before, after)
        pair = _mended(pair, before, after)
        how = f"after was {alignment}: mended, {before.width}x{before.height} are left."
    elif alignment and alignment.off:
        how = f"after is {alignment}: --align would mend it, unless that is the edit."
    else:
        how = None
    if (pair.mended or not how) and noise_alone(pair.before, pair.after, resampled):
        raise ImageError(
            "Before and after differ only by compression or noise: there is no edit to learn.", "only_noise"
        )
    note = " ".join(text for text in (how, told.note) if text) or None
    return replace(told, pair=pair, note=note, alignment=alignment)


def _mended(pair: Pair, before: Image.Image, after: Image.Image) -> Pair:
    pair = replace(pair, before=before, after=after, mended=pair.sha256)
    first, second = (hashlib.sha256(data).hexdigest() for data in pair.files())
    return replace(pair, sha256=(first, second))


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _only(role: str, uris: Sequence[str]) -> str:
    if not uris:
        raise ImageError(f"Its {role} image is missing.", f"no_{role}")
    if len(uris) > 1:
        names = " and ".join(uri.rpartition("/")[2] for uri in uris)
        raise ImageError(f"There are several {role} images: {names}. Keep one.", "ambiguous")
    return uris[0]


def _read(uri: str, max_pixels: int) -> tuple[Image.Image, str]:
    name = uri.rpartition("/")[2]
    try:
        data = store.read(uri)
        image = decoded(data, max_pixels)
        working_size(*image.size, TOKEN, LARGEST_SIDE**2)
    except ImageError as error:
        code = "too_small" if error.code in ("too_small", "aspect_ratio") else "unreadable"
        raise ImageError(f"{name}: {error}", code) from None
    except NotInStore as error:  # a bucket that does not answer is another matter, and no reason to leave pairs out
        raise ImageError(str(error)) from None
    return image, hashlib.sha256(data).hexdigest()


def decoded(data: bytes, max_pixels: int) -> Image.Image:
    """A picture as training uses it: RGB, 2048 pixels a side at most. Raises `ImageError`."""
    image = codec.decode(data, max_pixels, around=LARGEST_SIDE).image
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return image


def _alike_in_size(before: Image.Image, after: Image.Image) -> tuple[Image.Image, str | None]:
    """The after image at the size of the before image, and a note if it had another one."""
    try:
        check_framing(before, after)
    except PairError as error:
        raise ImageError(str(error), "framing") from None
    note = None
    if before.size != after.size:
        sizes = f"{after.width}x{after.height} becomes {before.width}x{before.height}"
        note = f"The after image is resized to its before image: {sizes}."
        after = after.resize(before.size, Image.Resampling.LANCZOS)
    return after, note


def _check_change(before: Image.Image, after: Image.Image) -> None:
    """Refuse what looks the same, unless it is a faint change that noise is not."""
    if share_changed(before, after) < LEAST_CHANGED and noise_alone(before, after):
        raise ImageError("Before and after look the same: there is no edit to learn.", "no_change")


def share_changed(before: Image.Image, after: Image.Image) -> float:
    """Share of pixels, 0 to 1, in which two pictures of one size differ visibly."""
    difference = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(2)
    return float((difference > CHANGED).mean())


def _without_duplicates(checked: Sequence[Checked]) -> list[Checked]:
    """All but the first of pairs that show the same: they would count twice, and be held out from themselves."""
    kept: list[tuple[Checked, np.ndarray]] = []
    outcome = []
    for each in checked:
        if each.pair:
            seen = _thumbnails(each.pair)
            twin = next((other for other, theirs in kept if np.abs(seen - theirs).max() <= ALIKE), None)
            if twin and twin.pair:
                same = twin.pair.sha256 == each.pair.sha256
                code, how = ("duplicate", "the same files as") if same else ("near_duplicate", "nearly the same as")
                each = replace(each, pair=None, code=code, reason=f"It is {how} {twin.name}.")
            else:
                kept.append((each, seen))
        outcome.append(each)
    return outcome


def _thumbnails(pair: Pair) -> np.ndarray:
    """What of a pair survives another size or compression."""
    size = (THUMBNAIL, THUMBNAIL)
    small = [image.resize(size, Image.Resampling.BOX) for image in (pair.before, pair.after)]
    return np.stack([np.asarray(image, np.int16) for image in small])
