"""Small models of the FLUX.2 family with random weights, made in a second: real code, no meaning."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

CONTEXT = 16  # text channels


def tiny_transformer(seed: int = 0) -> Flux2Transformer2DModel:
    """Two double-stream and two single-stream blocks, with stock processors."""
    torch.manual_seed(seed)
    return Flux2Transformer2DModel(
        in_channels=128,
        num_layers=2,
        num_single_layers=2,
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
