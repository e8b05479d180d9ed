"""The real bases as their configurations describe them, for models on the meta device or with random weights.

Sizes as published with the weights; what is not named here is the default of diffusers' classes.
"""

from typing import Any

_KLEIN = {"attention_head_dim": 128, "guidance_embeds": False}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "FLUX.1-dev": {"guidance_embeds": True},
    "FLUX.2-klein-4B": _KLEIN
    | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    "FLUX.2-klein-9B": _KLEIN
    | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    "FLUX.2-dev": {},
}
FLUX1_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
FLUX2_VAE: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512)}


def class_of(name: str) -> str:
    """The class of such a transformer in diffusers."""
    return "FluxTransformer2DModel" if name.startswith("FLUX.1") else "Flux2Transformer2DModel"
