"""What training the base and fitting an adapter share of the flow-matching loss.

Letters: B images, S tokens, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def importance(query_BSC: Tensor, truth_BSC: Tensor) -> Tensor:
    """(B, S) weights of mean 1. Small edits count as much as large ones (divide by the error of copying the query), and
    inside a picture the tokens that the edit changes count more than those it leaves alone."""
    change = F.mse_loss(query_BSC, truth_BSC, reduction="none").mean(2)
    mean = change.mean(1, keepdim=True)
    token = 0.5 + 0.5 * (change / (mean + 1e-4)).clamp(max=6)
    weight = token / (0.1 + mean)
    return weight / weight.mean()
