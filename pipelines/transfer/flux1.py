"""The FLUX.1 family: how images become tokens, where they sit on the canvas, how clean and result blocks run.

Positions are those of the paper's canvas of two by two panels (Edit Transfer, arXiv 2503.13327), before and after above
query and result, counted from the point where the four meet: rotary positions are relative, so that panels of any size
fit, and equal squares sit as they do on the canvas counted from its corner. The noise schedule and the
starting noise are the canvas's too, four panels of the result's size whatever the number of pairs, as in the paper's
public code. Bases of the kind of FLUX.1 Kontext know no canvas: there every panel starts at the same corner, the first
coordinate tells the references apart, and the result alone counts.

Letters: B images, C latent channels of a token, S tokens, T text tokens, E text channels, P pooled text channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.transfer.attention import Memory, Segment, install
from pipelines.transfer.family import Prompt, suited
from pipelines.transfer.layout import TIME_STRIDE, Grid, Panel
from pipelines.transfer.sampler import draw_noise, generator_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

GUIDANCE = 1.0  # what the paper gives the guidance-distilled member of the family (dev)
LEFT = ("before", "query")
PANELS = 4  # of the canvas
Positions = Literal["canvas", "kontext"]


class Flux1:
    """A base of the FLUX.1 family.

    Args:
        transformer, vae, scheduler: diffusers' own models; the transformer gets our attention processors.
        prompt: precomputed; none means no text tokens and a pooled embedding of zeros.
        positions: where panels sit: on the paper's canvas, or all at one corner, as Kontext was trained.
        guidance: what the guidance-distilled members of the family are told.
    """

    per_image: tuple[str, ...]

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        prompt: Tensor | Prompt | None = None,
        *,
        positions: Positions = "canvas",
        guidance: float = GUIDANCE,
    ) -> None:
        install(transformer)
        self.transformer = transformer
        self.device, self.dtype = transformer.device, transformer.dtype
        self.vae = vae
        self.scheduler = scheduler
        self.prompt = suited(prompt, self.silence)
        self.positions = positions
        self.guidance = guidance
        self.per_image = _per_image(transformer)

    @property
    def silence(self) -> Prompt:
        config = self.transformer.config
        return Prompt(torch.zeros(1, 0, config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim))

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
        images, config = images_B3HW.to(next(self.vae.parameters())), self.vae.config
        latents = (self.vae.encode(images).latent_dist.mode() - config.shift_factor) * config.scaling_factor
        return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)

    def decode(self, tokens_BSC: Tensor, grid: Grid) -> Tensor:
        """Tokens to images B3HW in [-1, 1]."""
        patches = tokens_BSC.to(next(self.vae.parameters())).transpose(1, 2).unflatten(2, grid).contiguous()
        config = self.vae.config
        latents = F.pixel_shuffle(patches, 2) / config.scaling_factor + config.shift_factor
        return self.vae.decode(latents).sample.clamp(-1, 1)

    def ids(self, panels: Sequence[Panel]) -> Tensor:
        """Position ids (S, 3) of panels that run together; on a canvas each further pair sits above the one before it,
        else references have first coordinates 1, 2, 3 ... in order, the query last, and the result 0."""
        if self.positions == "kontext":
            return torch.cat([_ids(panel, panel.time // TIME_STRIDE) for panel in panels])
        bottom, height, ids = 0, 0, []
        for panel in panels:
            if panel.role == "before":
                bottom, height = bottom + height, 0
            above = panel.role in ("before", "after")
            if above:
                height = max(height, panel.span[0])
            left = -panel.span[1] if panel.role in LEFT else 0
            ids.append(_ids(panel, 0, -bottom - panel.span[0] if above else 0, left))
        return torch.cat(ids)

    def text_ids(self, result: Panel) -> Tensor:
        """Position id (1, 3) of all text, as in stock: the corner of a canvas whose panels have the result's size, or
        that of all panels."""
        if self.positions == "kontext":
            return torch.zeros(1, 3, dtype=torch.int64)
        rows, columns = result.grid
        return torch.tensor([[0, -rows, -columns]])

    def run_clean(
        self,
        tokens_BSC: Tensor,
        panels: Sequence[Panel],
        read: Sequence[Segment] = (),
        each: Sequence[Sequence[Segment]] = (),
    ) -> Segment:
        """Run a clean block, modulated at t = 0 and the pooled text, without text tokens; returns its keys and values.

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
        """Velocity of the first panel when all tokens see all, all modulated at `t_B`: the paper's pass."""
        velocity = self._forward(tokens_BSC, panels, self.prompt.tokens_1TE, t_B, None)
        return velocity[:, : panels[0].tokens]

    def _forward(
        self, tokens: Tensor, panels: Sequence[Panel], text: Tensor, t: Tensor, memory: Memory | None
    ) -> Tensor:
        model, batch = self.transformer, tokens.shape[0]
        guidance = torch.full_like(t, self.guidance).to(self.device) if model.config.guidance_embeds else None
        pooled = self.prompt.pooled_1P
        assert pooled is not None  # `suited` saw to it
        return model(
            hidden_states=tokens.to(self.device, self.dtype),
            encoder_hidden_states=text.to(self.device, self.dtype).expand(batch, -1, -1),
            pooled_projections=pooled.to(self.device, self.dtype).expand(len(t), -1),
            timestep=t.to(self.device),
            img_ids=self.ids(panels).to(self.device),
            txt_ids=self.text_ids(panels[0]).expand(text.shape[1], -1).to(self.device),
            guidance=guidance,
            joint_attention_kwargs={"memory": memory} if memory is not None else None,
            return_dict=False,
        )[0]

    def noise(self, seeds: Sequence[int], result: Panel) -> Tensor:
        """Starting noise BSC of the result, a generator for each image.

        On a canvas it is the last quarter of the whole canvas's noise, every latent channel of which has been divided
        by its standard deviation.
        """
        if self.positions == "kontext":
            return draw_noise(seeds, result.tokens, self.channels)
        return torch.cat([self._canvas_noise(seed, result.grid) for seed in seeds])

    def _canvas_noise(self, seed: int, grid: Grid) -> Tensor:
        rows, columns = (2 * side for side in grid)  # of latents: 2x2 are a token
        canvas = torch.randn(self.channels // 4, 2 * rows, 2 * columns, generator=generator_of(seed))
        canvas = canvas / canvas.std((1, 2), keepdim=True)
        return F.pixel_unshuffle(canvas[None, :, rows:, columns:], 2).flatten(2).transpose(1, 2)

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """Noise levels from 1 down to 0, `steps + 1` of them, as the base's own scheduler spaces them.

        `tokens` are the result's; the shift is that of an image of the whole canvas, where there is one.
        """
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        config, noised = self.scheduler.config, tokens * (PANELS if self.positions == "canvas" else 1)
        spaced = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1.0 / steps, steps)
        lengths = config.base_image_seq_len, config.max_image_seq_len
        shift = calculate_shift(noised, *lengths, config.base_shift, config.max_shift)
        self.scheduler.set_timesteps(steps, sigmas=spaced, mu=shift if config.use_dynamic_shifting else None)
        return self.scheduler.sigmas.tolist()


def _ids(panel: Panel, first: int, top: int = 0, left: int = 0) -> Tensor:
    rows, columns = panel.places()
    return torch.cartesian_prod(torch.tensor([first]).to(rows), rows + top, columns + left)


def _per_image(transformer: FluxTransformer2DModel) -> tuple[str, ...]:
    """What turns an image's noise level into modulations: every block has layers of its own for that."""
    double = [
        f"transformer_blocks.{index}.{norm}"
        for index in range(len(transformer.transformer_blocks))
        for norm in ("norm1", "norm1_context")
    ]
    single = [f"single_transformer_blocks.{index}.norm" for index in range(len(transformer.single_transformer_blocks))]
    return ("time_text_embed", *double, *single, "norm_out")
