"""Full attention is the stock multi-reference pass of diffusers, number for number."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from PIL import Image

from pipelines.transfer import Editor
from pipelines.transfer.family import Prompt
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.layout import layout
from pipelines.transfer.passes import guided, velocity_field
from pipelines.transfer.sampler import denoise, draw_noise
from tests.tiny import CONTEXT, tiny_transformer, tiny_vae

SIGMAS = [1.0, 0.75, 0.4]


def picture(seed: int, size=(80, 64)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 255, (4, 5, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(coarse.numpy()).resize(size)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_full_equals_the_stock_pipeline(guidance):
    before, after, query = picture(1, (64, 64)), picture(2, (64, 64)), picture(3)
    prompt = torch.randn(1, 4, CONTEXT, generator=torch.Generator().manual_seed(4))
    negative = torch.randn(1, 3, CONTEXT, generator=torch.Generator().manual_seed(6))
    noise = draw_noise([5], 20, 128)

    stock = Flux2KleinPipeline(FlowMatchEulerDiscreteScheduler(), tiny_vae(), None, None, tiny_transformer())
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        image=[before, after, query],
        width=query.width,
        height=query.height,
        prompt_embeds=prompt,
        latents=noise.transpose(1, 2).unflatten(2, (4, 5)),
        sigmas=SIGMAS,
        num_inference_steps=len(SIGMAS),
        guidance_scale=guidance,
        negative_prompt_embeds=negative,
        output_type="pt",
    ).images

    said = Prompt(prompt, negative=Prompt(negative) if guidance > 1 else None, guidance=guidance)
    family = Flux2(tiny_transformer(), tiny_vae(), FlowMatchEulerDiscreteScheduler(), said)
    editor = Editor(family, base="tiny", revision="0", attention="full", max_area=80 * 64, default_steps=len(SIGMAS))
    prefix = editor.remember([(before, after)])
    with torch.no_grad():
        plan = layout(prefix.grids, (4, 5), "full")
        clean = family.encode(_pixels(query))
        velocity = guided(family, velocity_field(family, clean, prefix, plan))
        ours = family.decode(denoise(velocity, noise, [*SIGMAS, 0.0]), (4, 5))
    assert expected.std() > 0.01
    torch.testing.assert_close((ours + 1) / 2, expected, atol=1e-4, rtol=1e-4)


def _pixels(image: Image.Image) -> torch.Tensor:
    data = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(1, image.height, image.width, 3)
    return data.permute(0, 3, 1, 2) / 127.5 - 1


def test_schedules_are_the_stock_ones():
    """A base with resolution-dependent shifting is sampled at the stock pipeline's noise levels."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    family = Flux2(tiny_transformer(), tiny_vae(), scheduler)
    stock = Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential"),
        tiny_vae(),
        None,
        None,
        tiny_transformer(),
    )
    stock.set_progress_bar_config(disable=True)
    stock(
        image=[picture(1, (64, 64))],
        prompt_embeds=torch.zeros(1, 1, CONTEXT),
        guidance_scale=1.0,
        num_inference_steps=5,
        output_type="latent",
    )
    assert family.sigmas(5, 16) == stock.scheduler.sigmas.tolist()
