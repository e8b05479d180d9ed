"""Small models of the FLUX families with random weights, made in a second: real code, no meaning."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
)

CONTEXT = 16  # text channels
POOLED = 12  # channels of the pooled text, which FLUX.1 takes as well


def tiny_transformer(seed: int = 0, *, layers: int = 2) -> Flux2Transformer2DModel:
    """Some double-stream and as many single-stream blocks, with stock processors."""
    torch.manual_seed(seed)
    return Flux2Transformer2DModel(
        in_channels=128,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=CONTEXT,
        axes_dims_rope=(8, 8, 8, 8),
        guidance_embeds=False,
        timestep_guidance_channels=64,
    ).eval()


def tiny_vae(seed: int = 0) -> AutoencoderKLFlux2:
    """Eight-fold downsampling, as in FLUX.2."""
    torch.manual_seed(seed)
    return AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=32,
        norm_num_groups=4,
        mid_block_add_attention=False,
    ).eval()


def make_tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write a diffusers folder of the classes that real bases have."""
    tiny_transformer(seed).save_pretrained(folder / "transformer")
    tiny_vae(seed).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline"}))
    (folder / "edit_transfer.json").write_text(json.dumps({"steps": 2, "max_area": 64 * 64}))
    return folder


def tiny_transformer1(seed: int = 0, *, guidance: bool = True, layers: int = 2) -> FluxTransformer2DModel:
    """The same of the FLUX.1 family."""
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=CONTEXT,
        pooled_projection_dim=POOLED,
        axes_dims_rope=(8, 12, 12),
        guidance_embeds=guidance,
    ).eval()


def tiny_vae1(seed: int = 0) -> AutoencoderKL:
    """Eight-fold downsampling, as in FLUX.1."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ).eval()


def make_tiny_flux1(folder: Path, seed: int = 0) -> Path:
    """Write a diffusers folder of the classes of FLUX.1."""
    tiny_transformer1(seed).save_pretrained(folder / "transformer")
    tiny_vae1(seed).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    (folder / "edit_transfer.json").write_text(json.dumps({"steps": 2, "max_area": 64 * 64}))
    return folder
