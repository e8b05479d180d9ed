"""The FLUX.2 family: how images become tokens, how clean blocks and the result block run.

Letters: B images, C latent channels of a token, S tokens, T text tokens, E text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.transfer.attention import Memory, Segment, install
from pipelines.transfer.family import Prompt, suited
from pipelines.transfer.layout import Grid, Panel
from pipelines.transfer.sampler import draw_noise

if TYPE_CHECKING:
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

GUIDANCE = 4.0  # what the guidance-distilled member of the family (dev) was made for


class Flux2:
    """A base of the FLUX.2 family.

    Args:
        transformer, vae, scheduler: diffusers' own models; the transformer gets our attention processors.
        prompt: precomputed; none means no text tokens at all.
    """

    per_image: tuple[str, ...] = (
        "time_guidance_embed",
        "double_stream_modulation_img",
        "double_stream_modulation_txt",
        "single_stream_modulation",
        "norm_out",
    )

    def __init__(
        self,
        transformer: Flux2Transformer2DModel,
        vae: AutoencoderKLFlux2,
        scheduler: FlowMatchEulerDiscreteScheduler,
        prompt: Tensor | Prompt | None = None,
    ) -> None:
        install(transformer)
        self.transformer = transformer
        self.device, self.dtype = transformer.device, transformer.dtype
        self.vae = vae
        self.scheduler = scheduler
        self.prompt = suited(prompt, self.silence)

    @property
    def silence(self) -> Prompt:
        return Prompt(torch.zeros(1, 0, self.transformer.config.joint_attention_dim))

    @property
    def channels(self) -> int:
        """Latent channels of one token."""
        return self.transformer.config.in_channels

    @property
    def multiple(self) -> int:
        """Pixels per token side: the VAE's downsampling times the 2x2 patch."""
        return 2 ** len(self.vae.config.block_out_channels)

    def grid(self, width: int, height: int) -> Grid:
        """Rows and columns of tokens for an image whose sides are multiples of `multiple`."""
        return height // self.multiple, width // self.multiple

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """Images in [-1, 1] to clean tokens BSC; each panel on its own, so that nothing leaks between panels."""
        images = images_B3HW.to(next(self.vae.parameters()))
        latents = self.vae.encode(images).latent_dist.mode()
        mean, deviation = self._statistics(latents)
        patches = (F.pixel_unshuffle(latents, 2) - mean) / deviation
        return patches.flatten(2).transpose(1, 2)

    def decode(self, tokens_BSC: Tensor, grid: Grid) -> Tensor:
        """Tokens to images B3HW in [-1, 1]."""
        patches = tokens_BSC.to(next(self.vae.parameters())).transpose(1, 2).unflatten(2, grid).contiguous()
        mean, deviation = self._statistics(patches)
        latents = F.pixel_shuffle(patches * deviation + mean, 2)
        return self.vae.decode(latents).sample.clamp(-1, 1)

    def ids(self, panels: Sequence[Panel]) -> Tensor:
        """Position ids (S, 4): every panel has a time of its own."""
        return torch.cat([panel.ids() for panel in panels])

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        deviation = torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps)
        return norm.running_mean.view(1, -1, 1, 1).to(like), deviation.view(1, -1, 1, 1).to(like)

    def run_clean(
        self,
        tokens_BSC: Tensor,
        panels: Sequence[Panel],
        read: Sequence[Segment] = (),
        each: Sequence[Sequence[Segment]] = (),
    ) -> Segment:
        """Run a clean block, modulated at t = 0 and without text; returns its keys and values.

        It reads the same segments for every image, or those of `each`.
        """
        memory = Memory(read=read, each=each, record=True)
        no_text = self.prompt.tokens_1TE[:, :0]
        self._forward(tokens_BSC, panels, no_text, torch.zeros(1), memory)
        return memory.segment()

    def run_result(
        self,
        tokens_BSC: Tensor,
        panel: Panel,
        t_B: Tensor,
        read: Sequence[Segment] = (),
        each: Sequence[Sequence[Segment]] = (),
    ) -> Tensor:
        """Velocity of the result at noise level `t_B` in [0, 1], (B,) or one for all, reading the clean blocks."""
        return self._forward(tokens_BSC, [panel], self.prompt.tokens_1TE, t_B, Memory(read=read, each=each))

    def run_full(self, tokens_BSC: Tensor, panels: Sequence[Panel], t_B: Tensor) -> Tensor:
        """Velocity of the first panel when all tokens see all, all modulated at `t_B`: the stock pass."""
        velocity = self._forward(tokens_BSC, panels, self.prompt.tokens_1TE, t_B, None)
        return velocity[:, : panels[0].tokens]

    def _forward(
        self, tokens: Tensor, panels: Sequence[Panel], prompt: Tensor, t: Tensor, memory: Memory | None
    ) -> Tensor:
        model, batch = self.transformer, tokens.shape[0]
        text_ids = torch.zeros(prompt.shape[1], 4)
        text_ids[:, 3] = torch.arange(prompt.shape[1])
        guidance = torch.full_like(t, GUIDANCE) if model.config.guidance_embeds else None
        return model(
            hidden_states=tokens.to(self.device, self.dtype),
            encoder_hidden_states=prompt.to(self.device, self.dtype).expand(batch, -1, -1),
            timestep=t.to(self.device),
            img_ids=self.ids(panels).to(self.device),
            txt_ids=text_ids.to(self.device),
            guidance=guidance.to(self.device) if guidance is not None else None,
            joint_attention_kwargs={"memory": memory} if memory is not None else None,
            return_dict=False,
        )[0]

    def noise(self, seeds: Sequence[int], result: Panel) -> Tensor:
        """Starting noise BSC of the result, a generator for each image."""
        return draw_noise(seeds, result.tokens, self.channels)

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """Noise levels from 1 down to 0, `steps + 1` of them, as the base's own scheduler spaces them."""
        config = self.scheduler.config
        spaced = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1.0 / steps, steps)
        if config.use_dynamic_shifting:
            from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

            shift = compute_empirical_mu(image_seq_len=tokens, num_steps=steps)
        else:
            shift = None
        self.scheduler.set_timesteps(steps, sigmas=spaced, mu=shift)
        return self.scheduler.sigmas.tolist()
