"""What makes pictures crisp: errors of decoded pixels and of their edges, for the decoder and for the transformer.

The flow-matching loss weighs latents; this one weighs what they look like. Letters: B images, S tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.transfer.family import Family
from pipelines.transfer.layout import Grid

EDGE_WEIGHT = 0.5  # of the error of neighbouring differences
WINDOW = 6  # pixels
FAINTEST = 0.01  # difference that counts as an edge


def picture_loss(pictures_B3HW: Tensor, truth_B3HW: Tensor, contrast: float = 0.0) -> Tensor:
    """Mean absolute error of pixels and of differences between neighbours; pictures in [-1, 1].

    These two are smallest where an uncertain edge is smeared over all places in which it may be. With `contrast` the
    strength of the edges about each pixel counts as well, wherever exactly they are: sharper, and further from the
    truth where the guess is wrong.
    """
    loss = F.l1_loss(pictures_B3HW, truth_B3HW)
    for dim in (-1, -2):
        edges, true_edges = pictures_B3HW.diff(dim=dim), truth_B3HW.diff(dim=dim)
        loss = loss + EDGE_WEIGHT * F.l1_loss(edges, true_edges)
        if contrast:
            loss = loss + contrast * F.l1_loss(_strength(edges), _strength(true_edges))
    return loss


def _strength(edges_B3HW: Tensor) -> Tensor:
    """Root mean square of the differences in windows of a few pixels."""
    return (F.avg_pool2d(edges_B3HW.square(), WINDOW, stride=WINDOW // 2) + FAINTEST**2).sqrt()


def decoded_loss(
    family: Family, noisy_BSC: Tensor, t_B: Tensor, velocity_BSC: Tensor, truth_BSC: Tensor, grid: Grid
) -> Tensor:
    """`picture_loss` of the result as it looks from here, x - t v, against the decoded truth.

    The autoencoder's weights must not ask for gradients. A decoder at 128 px costs about as much as the transformer's
    result pass: give it a few tuples of a batch, those with the most noise.
    """
    guess = noisy_BSC - t_B[:, None, None] * velocity_BSC
    with torch.no_grad():
        truth = family.decode(truth_BSC, grid)
    return picture_loss(family.decode(guess, grid), truth)
