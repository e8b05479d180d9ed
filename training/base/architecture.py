"""What the miniature is made of: ordinary configurations of diffusers' own classes."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

from training.base.recipe import Phase

PANEL = 64  # side in px of the pictures on which the autoencoder is trained; it works at any size
HEAD = 32  # channels of an attention head
SHIFT = 0.111  # of noise levels: an even 0.5 becomes 0.1
MLP = 3  # times wider than the residual stream are the hidden layers


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


def new_transformer(phase: Phase, seed: int = 0) -> Flux2Transformer2DModel:
    """An untrained transformer: one double-stream block, then single-stream ones."""
    torch.manual_seed(seed)
    model = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=phase.single,
        attention_head_dim=HEAD,
        num_attention_heads=phase.heads,
        joint_attention_dim=64,
        timestep_guidance_channels=128,
        mlp_ratio=float(MLP),
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
