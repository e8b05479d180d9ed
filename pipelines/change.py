"""What an edit touched: a soft mask from the difference between what a base saw of a query and what it made of it.

The difference is held against a noise floor, since a base returns no pixel unharmed. A result that lies between the
query and its round trip through the base's autoencoder has not been edited; the size of that round trip's error is the
floor. Where the difference is strong, the region around it that is at least weakly different is changed (hysteresis
thresholding, Canny 1986); what is too small to be an edit is left out.

Letters: h, w rows and columns at working resolution. Levels are those of 8 bits, 0 to 255.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

DRIFT = 3.0  # levels by which a base may shift a whole channel without that being an edit
ENERGY, COHERENT = 2, 2  # radii of the windows over which a difference is averaged, without and with its sign
WIDE, FAINT = 10, 8.0  # the same for faint differences over large areas; more levels than that count as so many
FLOOR = 7  # radius of the window over which the floor is measured
QUIET = 1.5  # levels: rounding and the like, anywhere
DETAIL = 6  # radius below which the query's own structure is taken for noise, where no round trip is known
QUIETEST, LOUDEST = 0.25, 2.0  # share of an image that is never all edit, and how far it may raise the floor
STRONG, WEAK = 2.0, 1.0  # times the floor
SPECK = 5e-5  # share of an image that an edit has at least
LEAST = (2 * ENERGY + 1) ** 2 + 1  # and pixels: more than one that averaging has spread
ISLAND = 1e-3  # share of an image that is left untouched amid a change at least
LIMIT = np.float32(1e-4)  # feathering: less than this is nothing


def change_mask(result: Floats, seen: Floats, coded: Floats | None = None) -> Floats:
    """How far each pixel is the edit's, (h, w) from exactly 0 (untouched) to 1.

    Around the changed region the mask falls to 0 within a margin of a few pixels; it is 1 wherever a change was seen.

    Args:
        result, seen: (h, w, 3) in levels: what the base made, and the query that it was given; drift removed.
        coded: (h, w, 3), the query through the base's autoencoder and back, if that is known.
    """
    score = change_score(result, seen, coded)
    return feathered(_region(score > STRONG, score > WEAK))


def change_score(result: Floats, seen: Floats, coded: Floats | None = None) -> Floats:
    """The difference in units of the noise floor, (h, w), of arrays as `change_mask` takes them."""
    other = seen if coded is None else coded
    excess = result - np.clip(result, np.minimum(seen, other), np.maximum(seen, other))
    noise = seen - box(seen, DETAIL) if coded is None else coded - seen
    score = _energy(excess) / _floor(_energy(noise))
    wide = min(WIDE, min(score.shape) // 16)
    for radius, most in ((COHERENT, 255.0), (wide, FAINT)):
        score = np.maximum(score, _coherent(excess, radius, most) / _floor(_coherent(noise, radius, most)))
    return score / _loudness(excess, noise)


def _loudness(excess: Floats, noise: Floats) -> np.float32:
    """How much noisier a result is than the floor, where it is quiet. An edit is more than grain, so grain tells."""
    grain, expected = (_energy(each - box(each, COHERENT)) for each in (excess, noise))
    return np.float32(np.clip(np.quantile(grain / _floor(expected), QUIETEST), 1.0, LOUDEST))


def _coherent(difference: Floats, radius: int, most: float) -> Floats:
    return np.sqrt(np.square(box(np.clip(difference, -most, most), radius)).mean(2))


def _energy(difference: Floats) -> Floats:
    return np.sqrt(box(np.square(difference).mean(2), ENERGY))


def _floor(noise: Floats) -> Floats:
    return np.float32(QUIET) + np.sqrt(box(np.square(noise), FLOOR))


def drift_of(result: Floats, reference: Floats) -> Floats:
    """By how many levels each channel of a result is off everywhere, (3,); 0 where that is more than `DRIFT`.

    The most frequent difference, not the mean: an edit may cover most of the image.
    """
    return np.array([_mode(channel.ravel()) for channel in np.moveaxis(result - reference, 2, 0)], np.float32)


def _mode(values: Floats) -> float:
    reach = round(4 * DRIFT)
    counts = np.bincount((np.clip(np.rint(values), -reach, reach) + reach).astype(np.intp), minlength=2 * reach + 1)
    counts[[0, -1]] = 0  # all that is beyond reach
    near = np.convolve(counts, np.ones(2 * reach // 4 + 1), "same")
    centre = float(np.argmax(near)) - reach
    for _ in range(5):  # mean shift: the mean of what is around, until it stays
        around = values[np.abs(values - centre) <= DRIFT]
        centre = float(around.mean()) if around.size else 0.0
    return centre if abs(centre) <= DRIFT else 0.0


def _region(strong: Mask, weak: Mask) -> Mask:
    """The connected parts of `weak` that have enough of `strong` in them, and what is left between them in bits."""
    region = _parts(weak, strong, max(LEAST, SPECK * weak.size))
    return region | (~region & ~_parts(~region, ~region, ISLAND * weak.size))


def _parts(mask: Mask, seeds: Mask, least: float) -> Mask:
    """The connected parts of a mask with at least so many seeds in them."""
    labels = components(mask)
    found = np.zeros_like(mask)
    if labels.size:
        found[mask] = np.bincount(labels[seeds[mask]], minlength=labels.max() + 1)[labels] >= least
    return found


def components(mask: Mask) -> NDArray[np.intp]:
    """For each True pixel, in order, the number of its 8-connected component.

    Hooking and pointer jumping, after Shiloach and Vishkin (1982), over all pixels at once.
    """
    number = np.cumsum(mask.ravel()).reshape(mask.shape) - 1
    labels = np.arange(int(mask.sum()))
    joined = [(mask[a] & mask[b], number[a], number[b]) for a, b in _NEIGHBOURS]
    one = np.concatenate([first[both] for both, first, _ in joined])
    other = np.concatenate([second[both] for both, _, second in joined])
    while True:
        a, b = labels[one], labels[other]
        apart = a != b
        if not apart.any():
            return labels
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while (labels[labels] != labels).any():
            labels = labels[labels]


_ALL, _ONWARD, _BACK = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (
    ((_ALL, _BACK), (_ALL, _ONWARD)),
    ((_BACK, _ALL), (_ONWARD, _ALL)),
    ((_BACK, _BACK), (_ONWARD, _ONWARD)),
    ((_BACK, _ONWARD), (_ONWARD, _BACK)),
)


def feathered(region: Mask) -> Floats:
    """1 in the region, falling to exactly 0 within a margin around it."""
    radius = 2 if min(region.shape) >= 512 else 1
    wide = box(region.astype(np.float32), 2 * radius) > LIMIT
    soft = box(box(wide.astype(np.float32), radius), radius)
    return np.where(soft < LIMIT, np.float32(0), np.where(region, np.float32(1), np.minimum(soft, 1)))


def box(values: Floats, radius: int) -> Floats:
    """Means over squares of 2 * radius + 1 pixels, the borders repeated, of (h, w) or (h, w, C)."""
    for axis in (0, 1):
        padding = [(radius + (at == axis), radius) if at == axis else (0, 0) for at in range(values.ndim)]
        # One row more in front, and sums from 0: a difference of two sums is a window.
        sums = np.cumsum(np.pad(values, padding, "edge"), axis, dtype=np.float64)
        size, last = 2 * radius + 1, sums.shape[axis]
        ahead = np.take(sums, range(size, last), axis)
        behind = np.take(sums, range(last - size), axis)
        values = ((ahead - behind) / size).astype(np.float32)
    return values
