"""Bytes that live at once, counted."""

import pytest
import torch
import torch.nn.functional as F

from pipelines.transfer.tally import tallied

META, CPU = torch.device("meta"), torch.device("cpu")
MEBI = 2**20


@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_what_is_freed_no_longer_counts(device):
    with tallied(device) as tally:
        x = torch.empty(MEBI, device=device)
        y = x * 2
        assert tally.now == tally.peak == 8 * MEBI
        del x
        assert (tally.now, tally.peak) == (4 * MEBI, 8 * MEBI)
        tally.restart()
        assert tally.peak == 4 * MEBI
        del y
    assert tally.now == 0


def test_views_and_what_was_there_before_are_not_counted():
    weight = torch.empty(64, 64, device="meta")
    with tallied(META) as tally:
        view = weight.t()[:8]
        assert tally.now == 0
        kept = (weight * 1)[:8]  # a part of a tensor keeps all of it
        assert tally.now == weight.nbytes
        assert view.shape == kept.shape


def test_other_devices_are_not_counted():
    with tallied(META) as tally:
        torch.ones(MEBI).add(1)
    assert tally.peak == 0


@pytest.mark.parametrize("channels", [128, 512])
def test_attention_counts_no_scores(channels):
    """As on a GPU: what it takes grows with the tokens, not with their square."""

    def taken(tokens: int) -> int:
        query = torch.empty(1, 2, tokens, channels, device="meta", dtype=torch.bfloat16)
        with tallied(META) as tally:
            attended = F.scaled_dot_product_attention(query, query, query)
        assert attended.shape == query.shape and attended.dtype == query.dtype
        return tally.peak

    assert taken(8192) == pytest.approx(2 * taken(4096), rel=0.01)
    assert taken(4096) < 4096 * 4096
