"""Prefix attention: cached equals whole, and the cache is really read."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipelines.transfer.attention import Memory
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import Layout, layout
from tests.tiny import CONTEXT, tiny_transformer, tiny_vae

PAIRS = [((4, 4), (4, 4)), ((2, 5), (2, 5))]
QUERY = (3, 4)
TEXT = 3
T = 0.7


@pytest.fixture(scope="module")
def family() -> Flux2:
    torch.manual_seed(1)
    prompt = torch.randn(1, TEXT, CONTEXT)
    return Flux2(tiny_transformer(), tiny_vae(), FlowMatchEulerDiscreteScheduler(), prompt)


@pytest.fixture(scope="module")
def tokens() -> dict[str, torch.Tensor]:
    return tokens_of(layout(PAIRS, QUERY, "prefix"))


def tokens_of(plan: Layout) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = {f"pair{i}": sum(panel.tokens for panel in pair) for i, pair in enumerate(plan.pairs)}
    sizes |= {"query": plan.query.tokens, "result": plan.result.tokens}
    return {name: torch.randn(1, size, 128, generator=generator) for name, size in sizes.items()}


@torch.no_grad()
def cached(family: Flux2, tokens: dict[str, torch.Tensor], order=(0, 1), compact=1) -> torch.Tensor:
    """The product's way: every clean block once, then the result."""
    plan = layout(PAIRS, QUERY, "prefix", compact)
    pairs = [family.run_clean(tokens[f"pair{i}"], plan.pairs[i]) for i in order]
    query = family.run_clean(tokens["query"], [plan.query], pairs)
    return family.run_result(tokens["result"], plan.result, torch.tensor([T]), [*pairs, query])


@torch.no_grad()
def whole(tokens: dict[str, torch.Tensor], prompt: torch.Tensor, compact=1) -> torch.Tensor:
    """The rule of method.md spelt out: one masked sequence through a stock model, every token with its own t.

    Nothing of the product is used but the position ids: blocks are text + result, pair 0, pair 1, query.
    """
    model = tiny_transformer()  # stock processors
    plan = layout(PAIRS, QUERY, "prefix", compact)
    names = ["result", "pair0", "pair1", "query"]
    panels = [plan.result, *plan.pairs[0], *plan.pairs[1], plan.query]
    sees = {
        "text": names,
        "result": names,
        "pair0": ["pair0"],
        "pair1": ["pair1"],
        "query": ["pair0", "pair1", "query"],
    }
    owner = ["text"] * TEXT + [name for name in names for _ in range(tokens[name].shape[1])]
    mask = torch.tensor([[k in sees[q] or (k == "text" and q in ("text", "result")) for k in owner] for q in owner])
    t = torch.tensor([T if name in ("text", "result") else 0.0 for name in owner]) * 1000
    temb = model.time_guidance_embed(t, None)[None]
    image, text = model.x_embedder(torch.cat([tokens[n] for n in names], 1)), model.context_embedder(prompt)
    text_ids = torch.tensor([[0, 0, 0, i] for i in range(TEXT)])
    rotary = model.pos_embed(torch.cat([text_ids, *(panel.ids() for panel in panels)]))
    for block in model.transformer_blocks:
        text, image = block(
            hidden_states=image,
            encoder_hidden_states=text,
            temb_mod_img=model.double_stream_modulation_img(temb[:, TEXT:]),
            temb_mod_txt=model.double_stream_modulation_txt(temb[:, :TEXT]),
            image_rotary_emb=rotary,
            joint_attention_kwargs={"attention_mask": mask},
        )
    both = torch.cat([text, image], 1)
    for block in model.single_transformer_blocks:
        both = block(
            hidden_states=both,
            encoder_hidden_states=None,
            temb_mod=model.single_stream_modulation(temb),
            image_rotary_emb=rotary,
            joint_attention_kwargs={"attention_mask": mask},
        )
    result = both[:, TEXT : TEXT + plan.result.tokens]
    return model.proj_out(model.norm_out(result, temb[:, 0]))


def test_cached_prefix_equals_the_masked_sequence_run_whole(family, tokens):
    expected = whole(tokens, family.prompt.tokens_1TE)
    assert expected.std() > 0.01  # a model that answers nothing would agree with anything
    torch.testing.assert_close(cached(family, tokens), expected, atol=1e-4, rtol=1e-4)


def test_cached_equals_whole_with_compact_pairs(family, tokens):
    few = tokens_of(layout(PAIRS, QUERY, "prefix", 2))
    assert few["pair0"].shape[1] == tokens["pair0"].shape[1] / 4
    expected = whole(few, family.prompt.tokens_1TE, 2)
    torch.testing.assert_close(cached(family, few, compact=2), expected, atol=1e-4, rtol=1e-4)


def test_the_order_of_pairs_does_not_matter(family, tokens):
    torch.testing.assert_close(cached(family, tokens, (0, 1)), cached(family, tokens, (1, 0)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["pair0", "pair1", "query"])
def test_every_remembered_block_is_read(family, tokens, part):
    other = dict(tokens, **{part: tokens[part].flip(1)})
    assert (cached(family, tokens) - cached(family, other)).abs().max() > 1e-3


def test_the_clean_passes_never_see_what_comes_later(family, tokens):
    """Each clean block leaves the same keys and values whatever the noise, the noise level or the later blocks."""
    plan = layout(PAIRS, QUERY, "prefix")
    with torch.no_grad():
        pair = family.run_clean(tokens["pair0"], plan.pairs[0])
        kept = [(k.clone(), v.clone()) for k, v in pair.layers]
        query = family.run_clean(tokens["query"], [plan.query], [pair])
        for t in (1.0, 0.3):
            family.run_result(tokens["result"], plan.result, torch.tensor([t]), [pair, query])
        again = family.run_clean(tokens["pair0"], plan.pairs[0])
    for (k, v), (k_kept, v_kept), (k_again, v_again) in zip(pair.layers, kept, again.layers, strict=True):
        assert torch.equal(k, k_kept) and torch.equal(v, v_kept)
        assert torch.equal(k, k_again) and torch.equal(v, v_again)


def test_a_shared_pair_serves_a_whole_batch(family, tokens):
    """One pair cache of batch 1 gives each image of a batch what it gets alone."""
    plan = layout(PAIRS, QUERY, "prefix")
    queries = torch.cat([tokens["query"], tokens["query"].flip(1), tokens["query"] * 0.5])
    noise = torch.cat([tokens["result"], tokens["result"].flip(1), tokens["result"] * 0.5])
    with torch.no_grad():
        pair = family.run_clean(tokens["pair0"], plan.pairs[0])

        def edit(rows: slice) -> torch.Tensor:
            query = family.run_clean(queries[rows], [plan.query], [pair])
            t = torch.full((queries[rows].shape[0],), T)
            return family.run_result(noise[rows], plan.result, t, [pair, query])

        together = edit(slice(0, 3))
        for row in range(3):
            torch.testing.assert_close(together[row : row + 1], edit(slice(row, row + 1)), atol=1e-6, rtol=1e-5)


def test_gradients_reach_the_pair_through_the_cache(family, tokens):
    """Training runs the same passes: the loss on the result must teach how pairs are read."""
    plan = layout(PAIRS, QUERY, "prefix")
    source = tokens["pair0"].clone().requires_grad_()
    pair = family.run_clean(source, plan.pairs[0])
    query = family.run_clean(tokens["query"], [plan.query], [pair])
    family.run_result(tokens["result"], plan.result, torch.tensor([T]), [pair, query]).square().sum().backward()
    assert source.grad is not None and source.grad.abs().max() > 0


def test_memory_grows_with_the_pairs(family, tokens):
    plan = layout(PAIRS, QUERY, "prefix")
    with torch.no_grad():
        segments = [family.run_clean(tokens[f"pair{i}"], plan.pairs[i]) for i in range(2)]
    layers, heads, channels, floats = 4, 2, 32, 4
    assert segments[0].nbytes == 2 * layers * 32 * heads * channels * floats
    assert Memory(read=segments).slots == {}


def test_what_is_remembered_keeps_nothing_else_in_memory(family, tokens):
    """Values are a slice of one wide projection in FLUX.2's single-stream blocks."""
    plan = layout(PAIRS, QUERY, "prefix")
    with torch.no_grad():
        segment = family.run_clean(tokens["query"], [plan.query])
    storages = {id(s): s for layer in segment.layers for s in (tensor.untyped_storage() for tensor in layer)}
    assert sum(storage.nbytes() for storage in storages.values()) == segment.nbytes
