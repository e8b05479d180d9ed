"""What the miniature is made of, and on what diet it grows on which machine.

Everything here is an ordinary configuration of diffusers' own classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

from pipelines.transfer.layout import Grid
from training.scenes import COMPOSITIONS, FAMILIES

PANEL = 64  # side in px of the pictures on which the autoencoder is trained; it works at any size
HEAD = 32  # channels of an attention head
SHIFT = 0.111  # of noise levels: an even 0.5 becomes 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Size and diet of a miniature.

    `panel` is the side of a square panel in px; `grids` are sets of panel shapes in tokens of 16 px, each set of equal
    token count, the first one drawn most often. `shares` are the tuples of each family in a batch. Batches of
    `drawn_together` steps are drawn at once. Every `look_every` steps all families are scored, `look_cases` each.
    """

    panel: int
    single: int
    heads: int
    grids: tuple[tuple[Grid, ...], ...]
    shares: dict[str, int]
    drawn_together: int = 1
    rate: float = 1.5e-3
    checkpoint_every: int = 250
    look_every: int = 1000
    look_cases: int = 16

    @property
    def batch(self) -> int:
        return sum(self.shares.values())


SIXTEEN, FIFTEEN = ((4, 4), (4, 4), (2, 8), (8, 2)), ((3, 5), (5, 3))

RecipeName = Literal["tiny", "cpu", "gpu"]
RECIPES: dict[RecipeName, Recipe] = {
    # for tests and dry runs
    "tiny": Recipe(
        panel=64,
        single=1,
        heads=2,
        grids=(SIXTEEN,),
        shares={"background": 3, "tone": 2, "pose": 1},
        checkpoint_every=5,
        look_every=10,
        look_cases=2,
    ),
    # two CPU cores for some hours: what can be learned in that time, and little else
    "cpu": Recipe(
        panel=64,
        single=7,
        heads=8,
        grids=(SIXTEEN, FIFTEEN),
        shares={
            "recolour": 5,
            "add": 4,
            "remove": 7,
            "translate": 9,
            "background": 2,
            "tone": 2,
            "scale": 1,
            "background+recolour": 1,
            "add+tone": 1,
        },
    ),
    # one data-centre GPU for half an hour: everything
    "gpu": Recipe(
        panel=128,
        single=9,
        heads=11,
        grids=(((8, 8), (8, 8), (4, 16), (16, 4)),),
        shares=dict.fromkeys((*FAMILIES, *COMPOSITIONS), 32),
        drawn_together=4,
        checkpoint_every=500,
        look_every=1000,
        look_cases=8,
    ),
}


def new_vae(seed: int = 0) -> AutoencoderKLFlux2:
    """An untrained autoencoder: 8x downsampling, 32 latent channels, as in FLUX.2, with thin layers."""
    torch.manual_seed(seed)
    return AutoencoderKLFlux2(
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=32,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=PANEL,
    )


def new_transformer(recipe: Recipe, seed: int = 0) -> Flux2Transformer2DModel:
    """An untrained transformer: one double-stream block, then single-stream ones."""
    torch.manual_seed(seed)
    model = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=recipe.single,
        attention_head_dim=HEAD,
        num_attention_heads=recipe.heads,
        joint_attention_dim=64,
        timestep_guidance_channels=128,
        mlp_ratio=3.0,
        axes_dims_rope=(8, 8, 8, 8),
        rope_theta=2000,
        guidance_embeds=False,
    )
    _start_as_identity(model)
    return model


def _start_as_identity(model: Flux2Transformer2DModel) -> None:
    """Gates and output at zero, so that every block starts as the identity (adaLN-Zero, Peebles & Xie, DiT)."""
    for modulation in (
        model.double_stream_modulation_img,
        model.double_stream_modulation_txt,
        model.single_stream_modulation,
        model.norm_out,
    ):
        torch.nn.init.zeros_(modulation.linear.weight)
    torch.nn.init.zeros_(model.proj_out.weight)


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """All noise first, then levels near none, the second of two 0.1: a higher one forgets what the first step found."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False)
