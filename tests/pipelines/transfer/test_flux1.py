"""The FLUX.1 family: where panels sit, cached equals whole, alone equals together."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

from pipelines.transfer.family import Prompt
from pipelines.transfer.flux1 import Flux1
from pipelines.transfer.layout import Layout, layout
from tests.tiny import CONTEXT, POOLED, tiny_transformer1, tiny_vae1

SIDE = 4  # tokens of a square panel
TEXT = 3
STEPS = 35  # the paper's
T = 0.7
PAIRS = [((4, 4), (4, 4)), ((2, 5), (2, 5))]
QUERY = (3, 4)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


PROMPT = Prompt(drawn(1, 1, TEXT, CONTEXT), drawn(2, 1, POOLED))


@pytest.fixture(scope="module")
def family() -> Flux1:
    return Flux1(tiny_transformer1(), tiny_vae1(), scheduler(), PROMPT)


def test_panels_meet_at_one_point_and_pairs_stack_upwards(family):
    plan = layout(PAIRS, QUERY, "full")
    panels = [plan.result, *plan.pairs[0], *plan.pairs[1], plan.query]
    spans = []
    for ids in family.ids(panels).split([panel.tokens for panel in panels]):
        assert (ids[:, 0] == 0).all()
        spans.append([(axis.min().item(), axis.max().item() + 1) for axis in ids.T[1:]])
    assert spans == [
        [(0, 3), (0, 4)],
        [(-4, 0), (-4, 0)],
        [(-4, 0), (0, 4)],
        [(-6, -4), (-5, 0)],
        [(-6, -4), (0, 5)],
        [(0, 3), (-4, 0)],
    ]


@pytest.fixture(scope="module")
def tokens() -> dict[str, torch.Tensor]:
    return tokens_of(layout(PAIRS, QUERY, "prefix"))


def tokens_of(plan: Layout) -> dict[str, torch.Tensor]:
    sizes = {f"pair{i}": sum(panel.tokens for panel in pair) for i, pair in enumerate(plan.pairs)}
    sizes |= {"query": plan.query.tokens, "result": plan.result.tokens}
    return {name: drawn(30 + seed, 1, size, 64) for seed, (name, size) in enumerate(sizes.items())}


@torch.no_grad()
def cached(family: Flux1, tokens: dict[str, torch.Tensor], compact: int = 1) -> torch.Tensor:
    plan = layout(PAIRS, QUERY, "prefix", compact)
    pairs = [family.run_clean(tokens[f"pair{i}"], plan.pairs[i]) for i in range(2)]
    query = family.run_clean(tokens["query"], [plan.query], pairs)
    return family.run_result(tokens["result"], plan.result, torch.tensor([T]), [*pairs, query])


@torch.no_grad()
def whole(tokens: dict[str, torch.Tensor], family: Flux1, compact: int = 1) -> torch.Tensor:
    """One masked sequence through the stock attention, every token with its own t; blocks as in test_prefix."""
    model = tiny_transformer1()
    plan = layout(PAIRS, QUERY, "prefix", compact)
    names = ["result", "pair0", "pair1", "query"]
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
    temb = model.time_text_embed(t, torch.full_like(t, 1000), PROMPT.pooled_1P.expand(len(t), -1))
    image = model.x_embedder(torch.cat([tokens[name] for name in names], 1))
    text = model.context_embedder(PROMPT.tokens_1TE)
    ids = [family.ids([plan.result]), *(family.ids(pair) for pair in plan.pairs), family.ids([plan.query])]
    rotary = model.pos_embed(torch.cat([torch.tensor([[0, -3, -4]]).expand(TEXT, -1), *ids]))
    attend = {"attention_mask": mask, "image_rotary_emb": rotary}

    def modulated(norm: torch.nn.Module, x: torch.Tensor, rows: slice) -> list[torch.Tensor]:
        """What a stock modulation gives, with an embedding per token: tokens take the place of images."""
        first, *others = norm(x.transpose(0, 1), emb=temb[rows])
        return [first.transpose(0, 1), *others]

    for block in model.transformer_blocks:
        image_in, gate, shift, scale, mlp_gate = modulated(block.norm1, image, slice(TEXT, None))
        text_in, c_gate, c_shift, c_scale, c_mlp_gate = modulated(block.norm1_context, text, slice(TEXT))
        seen, c_seen = block.attn(image_in, text_in, **attend)
        image = image + gate * seen
        image = image + mlp_gate * block.ff(block.norm2(image) * (1 + scale) + shift)
        text = text + c_gate * c_seen
        text = text + c_mlp_gate * block.ff_context(block.norm2_context(text) * (1 + c_scale) + c_shift)
    both = torch.cat([text, image], 1)
    for block in model.single_transformer_blocks:
        x, gate = modulated(block.norm, both, slice(None))
        inner = torch.cat([block.attn(x, **attend), block.act_mlp(block.proj_mlp(x))], 2)
        both = both + gate * block.proj_out(inner)
    result = both[:, TEXT : TEXT + plan.result.tokens]
    return model.proj_out(model.norm_out(result, temb[:1]))


def test_cached_prefix_equals_the_masked_sequence_run_whole(family, tokens):
    expected = whole(tokens, family)
    assert expected.std() > 0.01
    torch.testing.assert_close(cached(family, tokens), expected, atol=1e-4, rtol=1e-4)


def test_cached_equals_whole_with_compact_pairs(family):
    few = tokens_of(layout(PAIRS, QUERY, "prefix", 2))
    torch.testing.assert_close(cached(family, few, 2), whole(few, family, 2), atol=1e-4, rtol=1e-4)


def test_compact_pairs_cover_the_places_of_the_canvas(family):
    full, compact = layout(PAIRS, QUERY, "full"), layout(PAIRS, QUERY, "full", 2)
    for plan, sides in ((full, (4, 4)), (compact, (2, 2))):
        before, after = family.ids(plan.pairs[0]).float().view(2, *sides, 3)
        assert before.mean((0, 1)).tolist() == [0, -2.5, -2.5]
        assert after.mean((0, 1)).tolist() == [0, -2.5, 1.5]
    quarters = family.ids(full.pairs[0]).float().view(2, 2, 2, 2, 2, 3).mean((2, 4))
    torch.testing.assert_close(family.ids(compact.pairs[0]), quarters.flatten(0, 2))


@pytest.mark.parametrize("part", ["pair0", "pair1", "query"])
def test_every_remembered_block_is_read(family, tokens, part):
    other = dict(tokens, **{part: tokens[part].flip(1)})
    assert (cached(family, tokens) - cached(family, other)).abs().max() > 1e-3


def test_tokens_are_packed_as_the_stock_pipeline_packs_them(family):
    pixels = drawn(40, 2, 3, 48, 64).clamp(-1, 1)
    with torch.no_grad():
        latents = (family.vae.encode(pixels).latent_dist.mode() - 0.1159) * 0.3611
        packed = FluxPipeline._pack_latents(latents, 2, 16, 6, 8)
        torch.testing.assert_close(family.encode(pixels), packed, atol=1e-6, rtol=1e-6)
        unpacked = FluxPipeline._unpack_latents(packed, 48, 64, 8) / 0.3611 + 0.1159
        expected = family.vae.decode(unpacked).sample.clamp(-1, 1)
        torch.testing.assert_close(family.decode(packed, (3, 4)), expected, atol=1e-5, rtol=1e-5)


def test_a_base_without_guidance_is_not_told_any():
    family = Flux1(tiny_transformer1(guidance=False), tiny_vae1(), scheduler())
    plan = layout([((2, 2), (2, 2))], (2, 2), "prefix")
    with torch.no_grad():
        pair = family.run_clean(drawn(1, 1, 8, 64), plan.pairs[0])
        assert family.run_result(drawn(2, 1, 4, 64), plan.result, torch.tensor([T]), [pair]).std() > 0
