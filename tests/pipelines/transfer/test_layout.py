"""The token layout rule."""

import pytest
import torch

from infra.errors import ImageError
from pipelines.transfer.layout import layout, working_size

PAIRS = [((4, 4), (4, 4)), ((2, 6), (2, 6))]


def test_only_the_result_is_noised():
    plan = layout(PAIRS, (3, 5), "prefix")
    panels = [panel for pair in plan.pairs for panel in pair] + [plan.query, plan.result]
    assert [panel.clean for panel in panels] == [True] * 5 + [False]
    assert plan.result.grid == plan.query.grid == (3, 5)


def test_prefix_pairs_share_their_places_and_full_pairs_do_not():
    prefix, full = layout(PAIRS, (3, 5), "prefix"), layout(PAIRS, (3, 5), "full")
    assert [[panel.time for panel in pair] for pair in prefix.pairs] == [[10, 20], [10, 20]]
    assert (prefix.query.time, prefix.result.time) == (30, 0)
    assert [[panel.time for panel in pair] for pair in full.pairs] == [[10, 20], [30, 40]]
    assert (full.query.time, full.result.time) == (50, 0)


def test_one_pair_sits_alike_in_both_modes():
    assert layout(PAIRS[:1], (3, 5), "prefix") == layout(PAIRS[:1], (3, 5), "full")


def test_position_ids_restart_in_every_panel_and_run_row_by_row():
    ids = layout(PAIRS, (2, 3), "prefix").query.ids()
    assert ids.tolist() == [[30, h, w, 0] for h in range(2) for w in range(3)]
    assert ids.dtype == torch.int64


@pytest.mark.parametrize("attention", ["prefix", "full", "joint"])
def test_compact_pairs_have_a_quarter_of_the_tokens_and_cover_the_same_places(attention):
    pairs, query = [((4, 6), (4, 6)), ((5, 3), (5, 3))], (3, 5)
    full, compact = layout(pairs, query, attention), layout(pairs, query, attention, 2)
    assert (compact.query, compact.result) == (full.query, full.result)
    assert [panel.grid for pair in compact.pairs for panel in pair] == [(2, 3)] * 2 + [(3, 2)] * 2
    assert 4 * compact.pairs[0][0].tokens == full.pairs[0][0].tokens
    for few, many in zip(compact.pairs[0], full.pairs[0], strict=True):
        squares = many.ids().float().view(2, 2, 3, 2, 4)  # every compact token stands for two by two
        torch.testing.assert_close(few.ids(), squares.mean((1, 3)).flatten(0, 1))
    for few, many in zip(compact.pairs[1], full.pairs[1], strict=True):  # sides that are not even
        for own, all_of in zip(few.places(), many.places(), strict=True):
            assert own.mean() == all_of.float().mean()
            gap = len(all_of) / len(own)
            torch.testing.assert_close(own[0] - gap / 2, torch.tensor(-0.5))
            torch.testing.assert_close(own[-1] + gap / 2, torch.tensor(len(all_of) - 0.5))


def test_pairs_that_are_not_compact_sit_on_whole_numbers():
    panel = layout(PAIRS, (2, 3), "prefix", 1).pairs[1][0]
    assert panel.ids().dtype == torch.int64
    assert panel.ids().tolist() == [[10, h, w, 0] for h in range(2) for w in range(6)]


@pytest.mark.parametrize("size", [(64, 64), (800, 600), (600, 800), (37, 211), (1024, 128), (17, 16), (5000, 5000)])
def test_working_size_keeps_proportions_under_the_cap(size):
    width, height = working_size(*size, multiple=16, max_area=64 * 64)
    assert width % 16 == 0 and height % 16 == 0
    assert width * height <= 64 * 64
    assert (width >= height) == (size[0] >= size[1]) or width == height
    ratio = (width / height) / (size[0] / size[1])
    assert 0.5 <= ratio <= 2  # as close as whole tokens allow, never squashed to a square


def test_small_images_are_not_enlarged():
    assert working_size(40, 24, multiple=16, max_area=64 * 64) == (32, 32)
    assert working_size(1024, 1024, multiple=16, max_area=1024 * 1024) == (1024, 1024)


@pytest.mark.parametrize(
    ("size", "code"), [((1, 1), "too_small"), ((400, 15), "too_small"), ((900, 100), "aspect_ratio")]
)
def test_hopeless_sizes_are_named(size, code):
    with pytest.raises(ImageError) as caught:
        working_size(*size, multiple=16, max_area=64 * 64)
    assert caught.value.code == code
    assert f"{size[0]}x{size[1]}" in str(caught.value)
