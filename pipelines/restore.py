"""A result in the full resolution of its query: what the edit did not touch is the original's, bit for bit.

    the base works on about a megapixel:   query -> seen -> result
    restore(query, draft)                  untouched pixels of the query + result, enlarged, with the query's detail

The changed region is guided upsampling: where the result still follows the query, the query's fine structure belongs
into it, scaled as the result scales the coarse one. Its gain is the slope of a local linear model at working
resolution (guided filter, He, Sun and Tang 2010; its coefficients enlarged as in He and Sun 2015), weighted by the
contrast-structure term of SSIM (Wang et al. 2004), which tells where there is something to follow.

Letters: H, W rows and columns of the query, h, w those at working resolution. Levels are those of 8 bits, 0 to 255.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines import scores
from pipelines.change import Floats, box, change_mask, drift_of

WINDOW = 4  # radius, in working pixels, of the windows in which result and query are compared
SLOPES = np.float32(2)  # how much stronger the query's detail may become
STABLE = np.float32(6.5)  # (0.01 * 255)**2, in the place of SSIM's constants: variances well below are noise
NEAR = 24  # radius, in working pixels, of the surroundings to which a changed region is matched
FEWEST = np.float32(0.02)  # share of them that is untouched; with fewer the match fades
ROWS = 256  # of the full image at a time
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Draft:
    """A result at the size at which the base works; all images RGB and of one size.

    seen   the query as the base got it, `coded` that query through the base's autoencoder and back, None if not known
    """

    result: Image.Image
    seen: Image.Image
    coded: Image.Image | None = None


@dataclass(frozen=True)
class Restored:
    """A result in full resolution.

    mask  how far each working pixel is the edit's, (h, w) from 0 to 1
    kept  share of the pixels that were taken from the query as they are, 0 to 1
    """

    image: Image.Image
    mask: Floats
    kept: float


def restore(query: Image.Image, draft: Draft) -> Restored:
    """The draft in the size of its query, (H, W), which may be larger or smaller; both show the same frame.

    Pixels where the enlarged mask is 0 are those of the query. Besides the image that is returned, memory is bounded
    by the working size and a few rows of the query.

    Raises:
        ValueError: the images of the draft differ in size.
    """
    images = (draft.result, draft.seen, draft.coded or draft.seen)
    if len({image.size for image in images}) > 1:
        raise ValueError(f"The images of a draft differ in size: {', '.join(str(image.size) for image in images)}.")
    result, seen, coded = (np.asarray(image.convert("RGB"), np.float32) for image in images)
    result = result - drift_of(result, coded)
    mask = change_mask(result, seen, coded if draft.coded else None)
    full = np.array(query.convert("RGB"))
    touched = 0
    if mask.any():
        result -= _surrounding_drift(result - coded, mask)
        planes = _Planes(result, coded @ LUMA, _gain(result, coded), mask, full.shape[:2])
        touched = sum(planes.merge(full, top) for top in range(0, len(full), ROWS))
    return Restored(Image.fromarray(full), mask, 1 - touched / (full.shape[0] * full.shape[1]))


def finished(query: Image.Image, result: Image.Image | Draft) -> tuple[Image.Image, dict[str, float]]:
    """A result in its query's size, restored if it is a draft, and its scores.

    Those are `change` (see `scores.change`), and `kept` (see `Restored`) if it was restored.
    """
    if isinstance(result, Image.Image):
        return result, {"change": scores.change(query, result)}
    restored = restore(query, result)
    return restored.image, {"change": scores.change(query, restored.image), "kept": restored.kept}


def _surrounding_drift(difference: Floats, mask: Floats) -> Floats:
    """What the untouched surroundings are off, carried on into the changed region (normalised convolution, Knutsson
    and Westin 1993): without it, a shade too small to be an edit would end at the mask's border."""
    untouched = (mask == 0).astype(np.float32)
    weight: Floats = np.maximum(box(box(untouched, NEAR), NEAR), FEWEST)
    carried: Floats = box(box(difference * untouched[..., None], NEAR), NEAR)
    return carried / weight[..., None]


def _gain(result: Floats, guide: Floats) -> Floats:
    """How much of the query's detail each channel of the result gets, (h, w, 3); -SLOPES to SLOPES."""
    light, shade = guide @ LUMA, result @ LUMA
    mean, means = box(light, WINDOW), box(result, WINDOW)
    variance = box(light * light, WINDOW) - mean * mean
    slopes = box(light[..., None] * result, WINDOW) - mean[..., None] * means
    together = slopes @ LUMA
    spread = box(shade * shade, WINDOW) - np.square(means @ LUMA)
    structure = (2 * np.abs(together) + STABLE) / (variance + spread + STABLE)
    # Without structure to compare, detail is taken to scale with brightness, as a reflecting surface does it.
    as_bright = np.clip(means / np.maximum(mean, np.float32(1))[..., None], 0, SLOPES)
    slopes = np.clip((slopes + STABLE * as_bright) / (variance + STABLE)[..., None], -SLOPES, SLOPES)
    trusted: Floats = np.square(np.clip(structure, 0, 1))
    return slopes * box(_least(trusted), 1)[..., None]


def _least(values: Floats) -> Floats:
    """Minima over 3x3 pixels: an edge that is gone must not leave a trace of itself."""
    padded = np.pad(values, 1, "edge")
    rows = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    return np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


class _Planes:
    """What the full image is merged from, a strip at a time: planes at working resolution, enlarged where needed."""

    def __init__(self, result: Floats, light: Floats, gain: Floats, mask: Floats, size: tuple[int, int]) -> None:
        self.result = [Image.fromarray(np.ascontiguousarray(result[..., c])) for c in range(3)]
        self.gain = [Image.fromarray(np.ascontiguousarray(gain[..., c])) for c in range(3)]
        self.light, self.mask = Image.fromarray(light), Image.fromarray(mask)
        self.height, self.width = size

    def merge(self, full: np.ndarray, top: int) -> int:
        """Put the changed pixels of the strip that begins at row `top` into `full`; returns how many they are."""
        bottom = min(top + ROWS, self.height)
        alpha = self._enlarged(self.mask, (0, top, self.width, bottom), Image.Resampling.BILINEAR)
        columns = np.flatnonzero(alpha.any(0))
        if not columns.size:
            return 0
        left, right = int(columns[0]), int(columns[-1]) + 1
        part, alpha = full[top:bottom, left:right], alpha[:, left:right]
        detail = part @ LUMA - self._enlarged(self.light, (left, top, right, bottom))
        for channel, plane in enumerate(self._channels(detail, (left, top, right, bottom))):
            mixed = part[..., channel] + alpha * (plane - part[..., channel])
            part[..., channel] = np.where(alpha > 0, np.clip(np.rint(mixed), 0, 255), part[..., channel])
        return int(np.count_nonzero(alpha))

    def _channels(self, detail: Floats, window: tuple[int, int, int, int]) -> Iterator[Floats]:
        for result, gain in zip(self.result, self.gain, strict=True):
            enlarged = self._enlarged(gain, window, Image.Resampling.BILINEAR)
            yield self._enlarged(result, window) + enlarged * detail

    def _enlarged(
        self,
        plane: Image.Image,
        window: tuple[int, int, int, int],
        how: Image.Resampling = Image.Resampling.BICUBIC,
    ) -> Floats:
        """The part of a plane that covers a window of the full image; Pillow looks beyond it, so no strip shows."""
        left, top, right, bottom = window
        across, down = plane.width / self.width, plane.height / self.height
        source = (left * across, top * down, min(right * across, plane.width), min(bottom * down, plane.height))
        return np.asarray(plane.resize((right - left, bottom - top), how, box=source))
