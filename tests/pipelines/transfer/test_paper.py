"""Edit Transfer's own sampling (arXiv 2503.13327), spelt out on one canvas with stock parts of diffusers, is what
`full` does on a FLUX.1 base; written from facts about the paper's public code, on a path of its own."""

import json
import math
from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image

from pipelines.transfer import Editor, passes
from pipelines.transfer.family import Prompt
from pipelines.transfer.flux1 import Flux1
from pipelines.transfer.pictures import to_images, to_tensor
from pipelines.transfer.sampler import denoise
from tests.serving.adapters import picture
from tests.tiny import CONTEXT, POOLED, make_tiny_flux1, tiny_transformer1, tiny_vae1

STEPS, TEXT, SEED = 35, 3, 7
PIXELS = 16  # a token's side
SHAPES = [(4, 4), (3, 5)]  # rows and columns of a panel, in tokens


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PROMPT = Prompt(random(1, 1, TEXT, CONTEXT), random(2, 1, POOLED))


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)  # as FLUX.1-dev has it


@torch.no_grad()
def sampled_by_the_paper(panels: list[Image.Image], seed: int) -> torch.Tensor:
    """Latents (1, 16, H, W) of the bottom right panel, from before, after and query."""
    model, vae, euler = tiny_transformer1(), tiny_vae1(), scheduler()
    coded = [vae.encode(to_tensor([panel])).latent_dist.mode() for panel in panels]
    before, after, query = ((code - vae.config.shift_factor) * vae.config.scaling_factor for code in coded)
    height, width = query.shape[2:]

    noise = torch.randn(1, 16, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    noise /= noise.std((2, 3), keepdim=True)
    clean = torch.cat([torch.cat([before, after], 3), torch.cat([query, torch.zeros_like(query)], 3)], 2)
    noised = torch.zeros_like(clean)
    noised[:, :, height:, width:] = 1
    canvas = clean + noised * noise

    def packed(latents: torch.Tensor) -> torch.Tensor:
        return FluxPipeline._pack_latents(latents, *latents.shape)

    tokens, clean, noised = packed(canvas), packed(clean), packed(noised)
    shift = calculate_shift(tokens.shape[1], max_shift=euler.config.max_shift)
    euler.set_timesteps(STEPS, sigmas=torch.linspace(1, 1 / STEPS, STEPS).tolist(), mu=shift)
    for t in euler.timesteps:
        velocity = model(
            hidden_states=tokens,
            encoder_hidden_states=PROMPT.tokens_1TE,
            pooled_projections=PROMPT.pooled_1P,
            timestep=t[None] / 1000,
            guidance=torch.ones(1),
            img_ids=FluxPipeline._prepare_latent_image_ids(1, height, width, "cpu", torch.float32),
            txt_ids=torch.zeros(TEXT, 3),
        ).sample
        tokens = torch.where(noised > 0, euler.step(velocity, t, tokens).prev_sample, clean)
    latents = FluxPipeline._unpack_latents(tokens, 2 * height * 8, 2 * width * 8, 8)
    return latents[:, :, height:, width:]


def panels_of(grid: tuple[int, int]) -> list[Image.Image]:
    rows, columns = grid
    return [picture(seed, (columns * PIXELS, rows * PIXELS)) for seed in (1, 2, 3)]


@pytest.mark.parametrize("grid", SHAPES)
@torch.no_grad()
def test_full_attention_on_the_canvas_is_the_papers_sampling(grid):
    before, after, query = panels_of(grid)
    family = Flux1(tiny_transformer1(), tiny_vae1(), scheduler(), PROMPT)
    pair = [(family.encode(to_tensor([before])), family.encode(to_tensor([after])))]
    prefix = passes.remember(family, pair, [(grid, grid)], "full")
    plan = prefix.layout(grid)
    velocity = passes.velocity_field(family, family.encode(to_tensor([query])), prefix, plan)
    noise = family.noise([SEED], plan.result)
    ours = denoise(velocity, noise, family.sigmas(STEPS, plan.result.tokens))
    expected = FluxPipeline._pack_latents(sampled := sampled_by_the_paper([before, after, query], SEED), *sampled.shape)
    assert (expected - noise).std() > 0.01
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_editor_gives_the_papers_picture(tmp_path):
    folder, (before, after, query) = make_tiny_flux1(tmp_path), panels_of((3, 4))
    (folder / "edit_transfer.json").write_text(json.dumps({"steps": STEPS, "attention": "full", "max_area": 64 * 64}))
    editor = Editor.load(folder, prompt_embeds=PROMPT)
    ours = editor.edit([query], editor.remember([(before, after)]), seeds=[SEED])[0]
    latents, vae = sampled_by_the_paper([before, after, query], SEED), tiny_vae1()
    pixels = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample.clamp(-1, 1)
    difference = (to_tensor([ours]) - to_tensor(to_images(pixels))).abs()
    assert difference.max() <= 2 / 255 + 1e-6  # one level, where rounding falls to the other side


@pytest.mark.parametrize(("positions", "shift"), [("canvas", 1.15), ("kontext", 0.63)])
def test_the_schedule_counts_the_whole_canvas_where_there_is_one(positions, shift):
    """At 512 pixels; sigma' = e^mu / (e^mu + 1 / sigma - 1), Esser et al., arXiv 2403.03206."""
    family = Flux1(tiny_transformer1(), tiny_vae1(), scheduler(), positions=positions)
    sigmas = family.sigmas(STEPS, 32 * 32)
    plain = torch.linspace(1, 1 / STEPS, STEPS).tolist()
    expected = [math.exp(shift) / (math.exp(shift) + 1 / sigma - 1) for sigma in plain]
    assert sigmas == pytest.approx([*expected, 0], abs=1e-5)
    assert all(now > then for now, then in pairwise(sigmas))


def test_noise_is_that_of_a_whole_canvas_in_even_channels():
    family = Flux1(tiny_transformer1(), tiny_vae1(), scheduler())
    result = passes.remember(family, [], [], "full").layout((24, 16)).result
    noise = family.noise([3, 4], result)
    assert noise.shape == (2, result.tokens, family.channels)
    assert torch.equal(noise[1:], family.noise([4], result)) and not torch.equal(noise[0], noise[1])
    by_channel = noise.unflatten(2, (16, 4)).std((1, 3))
    assert by_channel.sub(1).abs().max() < 0.1 and (by_channel != 1).all()
