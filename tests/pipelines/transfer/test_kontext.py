"""Bases of the kind of FLUX.1 Kontext: references at the result's corner, told apart by their first coordinate."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from PIL import Image

from infra.errors import BaseNotFound
from pipelines.transfer import Editor, bases, passes
from pipelines.transfer.family import Prompt
from pipelines.transfer.flux1 import Flux1
from pipelines.transfer.layout import layout
from pipelines.transfer.pictures import to_tensor
from pipelines.transfer.sampler import draw_noise, euler_move
from tests.serving.adapters import picture
from tests.tiny import CONTEXT, POOLED, make_tiny_flux1, tiny_transformer1, tiny_vae1

STEPS = 4
SIZE = (80, 64)
GRID = (4, 5)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


PROMPT = Prompt(drawn(1, 1, 3, CONTEXT), drawn(2, 1, POOLED))


def family(**ways: object) -> Flux1:
    return Flux1(tiny_transformer1(), tiny_vae1(), scheduler(), PROMPT, positions="kontext", **ways)


def states_of_stock(query: Image.Image, noise: torch.Tensor, guidance: float) -> list[torch.Tensor]:
    """The latents after every step of diffusers' own pipeline with one reference."""
    stock = FluxKontextPipeline(scheduler(), tiny_vae1(), None, None, None, None, tiny_transformer1())
    stock.set_progress_bar_config(disable=True)
    states = []

    def kept(pipeline, step, t, now):
        states.append(now["latents"].clone())
        return now

    stock(
        image=query,
        width=query.width,
        height=query.height,
        max_area=query.width * query.height,
        _auto_resize=False,
        prompt_embeds=PROMPT.tokens_1TE,
        pooled_prompt_embeds=PROMPT.pooled_1P,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
        callback_on_step_end=kept,
    )
    return states


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@torch.no_grad()
def test_full_attention_to_a_query_alone_is_the_stock_pipeline(guidance):
    query, ours = picture(3, SIZE), family(guidance=guidance)
    x = noise = draw_noise([5], 20, 64)
    expected = states_of_stock(query, noise, guidance)
    prefix = passes.remember(ours, [], [], "full")
    velocity = passes.velocity_field(ours, ours.encode(to_tensor([query])), prefix, prefix.layout(GRID))
    sigmas = ours.sigmas(STEPS, 20)
    assert len(expected) == STEPS and (expected[-1] - noise).std() > 0.01
    for state, now, then in zip(expected, sigmas, sigmas[1:], strict=False):
        x = euler_move(x, velocity(x, torch.tensor([now])), now, then)
        torch.testing.assert_close(x, state, atol=1e-4, rtol=1e-4)


def test_references_are_told_apart_by_the_first_coordinate():
    ours, plan = family(), layout([((2, 2), (2, 2)), ((2, 3), (2, 3))], (1, 2), "full")
    panels = [plan.result, *plan.pairs[0], *plan.pairs[1], plan.query]
    expected = [
        [index, row, column]
        for index, panel in enumerate(panels)
        for row in range(panel.grid[0])
        for column in range(panel.grid[1])
    ]
    assert ours.ids(panels).tolist() == expected
    assert ours.text_ids(plan.result).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("attention", ["prefix", "joint", "full"])
def test_pairs_decide_the_result_under_every_attention(tmp_path, attention):
    folder = make_tiny_flux1(tmp_path / "base")
    _say(folder, positions="kontext")
    editor = Editor.load(folder, attention=attention)
    results = {
        editor.edit([picture(3)], editor.remember([(picture(1), picture(after))]), seeds=[5])[0].tobytes()
        for after in (2, 4)
    }
    assert editor.family.positions == "kontext" and len(results) == 2


def _say(folder: Path, **told: object) -> None:
    path = folder / "edit_transfer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def _positions(folder: Path) -> str:
    return Editor.load(folder).family.positions


def test_a_folder_says_where_its_panels_sit(tmp_path):
    folder = make_tiny_flux1(tmp_path / "base")
    canvas = bases.revision_of(folder)
    assert _positions(folder) == "canvas"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    assert _positions(folder) == "kontext" and bases.revision_of(folder) != canvas
    _say(folder, positions="canvas")
    assert _positions(folder) == "canvas" and bases.revision_of(folder) == canvas
    _say(folder, guidance=2.5)
    assert Editor.load(folder).family.guidance == 2.5 and bases.revision_of(folder) != canvas


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"positions": "circle"}, "says positions are 'circle'; they can be canvas or kontext"),
        ({"guidance": "much"}, "says guidance is 'much'; give a number"),
    ],
)
def test_what_a_folder_says_wrongly_is_told(tmp_path, told, said):
    folder = make_tiny_flux1(tmp_path / "base")
    _say(folder, **told)
    with pytest.raises(BaseNotFound, match=said):
        Editor.load(folder)
