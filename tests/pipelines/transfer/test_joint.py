"""Joint attention is the scheme of diffusers' `Flux2KleinKVPipeline`, number for number."""

import json

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinKVPipeline
from PIL import Image

from pipelines.transfer import Editor, bases
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import layout
from pipelines.transfer.passes import Prefix, contexts, velocities, velocity_field
from pipelines.transfer.sampler import denoise, draw_noise
from tests.pipelines.transfer.test_stock import SIGMAS, picture
from tests.tiny import CONTEXT, make_tiny_base, tiny_transformer, tiny_vae

GRID = (4, 5)  # of the query
PAIRS = [(picture(1, (64, 64)), picture(2, (64, 64))), (picture(6, (64, 80)), picture(7, (64, 80)))]
QUERIES = [picture(3), picture(8)]
LEVELS = [*SIGMAS, 0.0]


def prompt() -> torch.Tensor:
    return torch.randn(1, 4, CONTEXT, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def editor() -> Editor:
    family = Flux2(tiny_transformer(), tiny_vae(), FlowMatchEulerDiscreteScheduler(), prompt())
    return Editor(family, base="tiny", revision="0", attention="joint", max_area=80 * 64, default_steps=3)


@pytest.fixture(scope="module")
def prefix(editor) -> Prefix:
    return editor.remember(PAIRS)


def encoded(editor: Editor, image: Image.Image) -> torch.Tensor:
    data = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(1, image.height, image.width, 3)
    return editor.family.encode(data.permute(0, 3, 1, 2) / 127.5 - 1)


@torch.no_grad()
def test_joint_equals_the_stock_pipeline_at_every_step(editor, prefix):
    noise = draw_noise([5], 20, 128)
    stock = Flux2KleinKVPipeline(FlowMatchEulerDiscreteScheduler(), tiny_vae(), None, None, tiny_transformer())
    stock.set_progress_bar_config(disable=True)
    seen = []
    expected = stock(
        image=[*PAIRS[0], *PAIRS[1], QUERIES[0]],
        width=QUERIES[0].width,
        height=QUERIES[0].height,
        prompt_embeds=prompt(),
        latents=noise.transpose(1, 2).unflatten(2, GRID),
        sigmas=SIGMAS,
        num_inference_steps=len(SIGMAS),
        output_type="pt",
        callback_on_step_end=lambda pipe, step, t, kwargs: seen.append(kwargs["latents"]) or {},
    ).images

    plan = layout(prefix.grids, GRID, "joint")
    velocity = velocity_field(editor.family, encoded(editor, QUERIES[0]), prefix, plan)
    steps = [denoise(velocity, noise, LEVELS[: count + 1]) for count in range(1, len(LEVELS))]
    assert len(seen) == len(steps)
    for ours, theirs in zip(steps, seen, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01
    torch.testing.assert_close((editor.family.decode(steps[-1], GRID) + 1) / 2, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_it_is_neither_full_nor_prefix(editor, prefix):
    query, x, t = encoded(editor, QUERIES[0]), draw_noise([5], 20, 128), torch.tensor([0.6])
    [joint, full, alone] = [
        velocity_field(editor.family, query, editor.remember(PAIRS, kind), layout(prefix.grids, GRID, kind))(x, t)
        for kind in ("joint", "full", "prefix")
    ]
    assert (joint - full).abs().max() > 1e-3
    assert (joint - alone).abs().max() > 1e-3


@torch.no_grad()
def test_references_run_once_per_query(editor, prefix, monkeypatch):
    runs = []
    forward = editor.family.transformer.forward
    monkeypatch.setattr(
        editor.family.transformer,
        "forward",
        lambda **given: runs.append(given["hidden_states"].shape[1]) or forward(**given),
    )
    velocity = velocity_field(editor.family, encoded(editor, QUERIES[0]), prefix, layout(prefix.grids, GRID, "joint"))
    denoise(velocity, draw_noise([5], 20, 128), LEVELS)
    references = sum(tokens.shape[1] for tokens in prefix.tokens) + 20
    assert runs == [references, 20, 20, 20]


@torch.no_grad()
def test_batch_equals_single(editor, prefix):
    """In one call, and as serving does it: contexts made together, results at noise levels of their own."""
    plan, family = layout(prefix.grids, GRID, "joint"), editor.family
    queries = torch.cat([encoded(editor, query) for query in QUERIES])
    x, t = draw_noise([5, 6], 20, 128), torch.tensor([0.9, 0.3])
    singles = torch.cat(
        [velocity_field(family, queries[i : i + 1], prefix, plan)(x[i : i + 1], t[i : i + 1]) for i in range(2)]
    )
    served = contexts(family, queries, [prefix, prefix], [plan, plan])
    torch.testing.assert_close(velocity_field(family, queries, prefix, plan)(x, t), singles, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(velocities(family, x, t, served), singles, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_joint_and_prefix_results_share_a_pass(editor, prefix):
    family, x, t = editor.family, draw_noise([5, 6], 20, 128), torch.tensor([0.9, 0.3])
    kept = [prefix, editor.remember(PAIRS, "prefix")]
    plans = [layout(each.grids, GRID, each.attention) for each in kept]
    query = encoded(editor, QUERIES[0])
    each = [contexts(family, query, [held], [plan])[0] for held, plan in zip(kept, plans, strict=True)]
    assert each[0].kind == each[1].kind
    singles = [
        velocity_field(family, query, held, plan)(x[i : i + 1], t[i : i + 1])
        for i, (held, plan) in enumerate(zip(kept, plans, strict=True))
    ]
    torch.testing.assert_close(velocities(family, x, t, each), torch.cat(singles), atol=1e-5, rtol=1e-5)


def test_a_lora_at_scale_0_is_the_base(editor, prefix):
    from peft import LoraConfig

    own = Flux2(tiny_transformer(), tiny_vae(), FlowMatchEulerDiscreteScheduler(), prompt())
    worn = Editor(own, base="tiny", revision="0", attention="joint", max_area=80 * 64, default_steps=3)
    own.transformer.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear"), "edit")
    images = {}
    for scale in (0.0, 1.0):
        own.transformer.set_adapters(["edit"], [scale])
        [images[scale]] = worn.edit(QUERIES[:1], worn.remember(PAIRS), seeds=[5])
    [plain] = editor.edit(QUERIES[:1], prefix, seeds=[5])
    assert images[0.0].tobytes() == plain.tobytes() != images[1.0].tobytes()


def test_a_base_of_the_kv_pipeline_is_used_as_it_was_trained(tmp_path):
    folder = make_tiny_base(tmp_path)
    (folder / "edit_transfer.json").unlink()
    assert bases.settings_of(folder).attention == "prefix"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinKVPipeline"}))
    assert (bases.settings_of(folder).attention, bases.settings_of(folder).steps) == ("joint", 4)
