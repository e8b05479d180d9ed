"""The motion of a whole picture, from blocks of grey pictures: guessed in the smallest, followed into the largest."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipelines.pairs.blocks import Array, Matches, follow, search, textured
from pipelines.pairs.motion import Motion, basis

LARGEST = 1024  # pixels of the long side of pictures that are looked at
SEARCHED = 192  # of those in which blocks are searched for, at most
PICKED = 256  # of those in which the blocks to follow are picked
REACH = 0.14  # of the long side: how far blocks are searched for
FOUND = 0.7  # correlation of blocks that are worth asking, and how many there must be
ASKED = 8
DRAWS = 400  # pairs of blocks that are asked how the picture moved
APART = 0.2  # of the long side: how far the two of a pair lie apart
WILD = (0.2, 0.12)  # zoom and turn in radians that no pair of blocks is believed
NEAR = 1.5  # pixels by which blocks may differ that agree on a motion, in the smallest pictures
RATHER = 1.1  # times as many must agree on a motion as on none
SEEN = 0.5  # correlation of a block that was followed to the right place
LOST = 2  # pixels from where the others are: a block that has nothing to say
DOUBTFUL = 3  # standard deviations at which a block counts a quarter, more in the first rounds
PRIOR = np.array([1e-3, 1e-3, 1e-4, 1e-4, 1e-4])  # of no motion, where nothing is known
ROUNDS = 10
STEPS = 2  # of following blocks in the smallest and in the largest pictures


def levels_of(image: Image.Image) -> tuple[int, list[Array]]:
    """Grey pictures, each half as large as the one before, and how many times smaller than the image the first is."""
    factor = -(-max(image.size) // LARGEST)
    grey = image.convert("L").reduce(factor) if factor > 1 else image.convert("L")
    depth = 0
    while max(grey.size) >> depth > SEARCHED and min(grey.size) >> depth > SEARCHED // 3:
        depth += 1
    grey = grey.crop((0, 0, grey.width >> depth << depth, grey.height >> depth << depth))
    return factor, [_smoothed(np.asarray(grey.reduce(1 << level), np.float32)) for level in range(depth + 1)]


def _smoothed(picture: Array) -> Array:
    """Without what is too fine to be interpolated between pixels."""
    padded = np.pad(picture, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def track(ones: list[Array], others: list[Array]) -> tuple[Motion, Array, Array]:
    """The motion between two lists of levels in pixels of the largest pictures, the places (N, 2) of the blocks that it
    was followed by, and (N,) in [0, 1] how well each agrees."""
    motion, last = _guessed(ones[-1], others[-1]), len(ones) - 1
    picked = next((level for level, one in enumerate(ones) if max(one.shape) <= PICKED), last)
    spots = textured(ones[picked]) * 2**picked
    for level in range(last, -1, -1):
        places, motion = spots / 2**level, motion.scaled(1 if level == last else 2)
        for _ in range(STEPS if level in (0, last) else 1):
            matches = follow(ones[level], others[level], places, motion.targets(places), motion.linear)
            motion, weights = _fitted(matches, motion, max(ones[level].shape))
    return motion, spots, weights


def _guessed(before: Array, after: Array) -> Motion:
    """The similarity on which most blocks agree, none where that does nearly as well (Fischler and Bolles, 1981)."""
    side, still = max(before.shape), Motion(np.zeros(5))
    found = search(before, after, round(REACH * min(side, SEARCHED)))
    good = found.likeness > FOUND
    if good.sum() < ASKED:
        return still
    places, moved, likeness = found.places[good], found.moved[good], found.likeness[good]
    values = np.concatenate([np.zeros((1, 5)), _of_two_blocks(places, moved, APART * side)])
    off = (basis(places)[None] @ values[:, None, :, None])[..., 0] - moved
    votes = ((off**2).sum(2) < NEAR**2) @ likeness
    best = votes.argmax()
    if votes[best] <= RATHER * votes[0]:
        return still
    near = (off[best] ** 2).sum(1) < NEAR**2
    known, seen = basis(places[near]).reshape(-1, 5), moved[near].reshape(-1)
    prior = np.diag(PRIOR * [1, 1, side**2, side**2, side**2])
    return Motion(np.linalg.solve(known.T @ known + prior, known.T @ seen))


def _of_two_blocks(places: Array, moved: Array, apart: float) -> Array:
    """Motions (M, 5) without stretch that pairs of blocks tell, if they lie far enough apart; the same every time."""
    one, two = np.random.default_rng(0).integers(len(places), size=(2, DRAWS))
    (x, y), (u, v) = (places[two] - places[one]).T, (moved[two] - moved[one]).T
    square = np.maximum(x**2 + y**2, 1)
    zoom, turn = (x * u + y * v) / square, (x * v - y * u) / square
    values = np.stack([*np.zeros((2, DRAWS)), zoom, turn, np.zeros(DRAWS)], -1)
    values[:, :2] = moved[one] - (basis(places[one]) @ values[..., None])[..., 0]
    return values[(square > apart**2) & (np.abs(zoom) < WILD[0]) & (np.abs(turn) < WILD[1])]


def _fitted(matches: Matches, motion: Motion, side: int) -> tuple[Motion, Array]:
    """The motion on which blocks agree, each counting by what it knows and by how well it agrees (N,); Geman and
    McClure's weights."""
    root = np.linalg.cholesky(matches.information + np.eye(2) * 1e-9).transpose(0, 2, 1)
    known, seen = root @ basis(matches.places), (root @ matches.moved[..., None])[..., 0]
    prior, values = np.diag(PRIOR * [1, 1, side**2, side**2, side**2]), motion.values
    for round_ in range(ROUNDS):
        doubtful = DOUBTFUL * 2 ** max(0, ROUNDS // 2 - round_)
        near = np.hypot(*(matches.moved - basis(matches.places) @ values).T) < LOST
        off = ((seen - known @ values) ** 2).sum(1)
        weights = near * (matches.likeness > SEEN) / (1 + off / doubtful**2) ** 2
        weighed = (known * weights[:, None, None]).reshape(-1, 5).T
        values = np.linalg.solve(weighed @ known.reshape(-1, 5) + prior, weighed @ seen.reshape(-1))
    return Motion(values), weights
