"""A `Tuning` made so: a base that takes less memory or less time, each for something.

All of it is other people's: torchao's weights, torch's compiler, diffusers' step caches, offloading, tiling and
attention backends. What each one costs is in this folder's README.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from infra.errors import UsageError
from pipelines.transfer.attention import blocks_of, set_backend
from pipelines.tuning import StepCache, Tuning, Weights

BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")
MARK = ".lora_"  # between the name of a module and that of its LoRA matrix
MODULATION = ".norm"  # in the names of layers that turn an image's noise level into modulations
FLOAT8_PRODUCTS = (8, 9)  # compute capability from which a GPU multiplies in FP8
INT4_GROUP = 128  # weights that share a scale
GRAPHS = 64  # of one kind of block at most: passes, batches of one and of more, sizes static and dynamic are some 12


def light_layers(transformer: nn.Module, weights: Weights) -> dict[str, Weights]:
    """Which layers are kept in fewer bits, by name, and in how many: the linear ones of the blocks.

    Modulations see one row for a whole image and have no use for 4 bits or products in FP8; they are a quarter of
    FLUX.1. What belongs to an adapter stays as it is.
    """
    if weights == "full":
        return {}
    modulating: Weights = "float8" if weights == "float8" else "int8"
    return {name: modulating if MODULATION in name else weights for name in linear_layers(transformer)}


def linear_layers(transformer: nn.Module) -> list[str]:
    """Names of the blocks' own linear layers, those of LoRAs left out."""
    return [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(BLOCKS) and MARK not in name
    ]


def lighten(transformer: Any, weights: Weights, device: torch.device) -> None:
    """Keep `light_layers` in fewer bits, made on `device` layer by layer, so that they never are there in full.

    Raises:
        UsageError: torchao is not installed, or `device` cannot compute with such weights.
    """
    layers = light_layers(transformer, weights)
    for modulating in (False, True) if layers else ():
        chosen = {name for name in layers if (MODULATION in name) == modulating}
        if chosen:
            _quantise(transformer, chosen, layers[next(iter(chosen))], device, products=not modulating)


def _quantise(transformer: Any, layers: set[str], weights: Weights, device: torch.device, products: bool) -> None:
    config = _torchao_config(weights, device, products)
    from torchao.quantization import quantize_

    quantize_(transformer, config, filter_fn=lambda _, name: name in layers, device=device)


def _torchao_config(weights: Weights, device: torch.device, products: bool) -> Any:
    """With `products`, a GPU that can multiplies in FP8, else weights alone are light."""
    try:
        from torchao import quantization
    except ImportError:
        raise UsageError(
            f"--weights {weights} needs torchao. Install it with `pip install 'edit-transfer[light]'`."
        ) from None
    if weights == "int8":
        return quantization.Int8WeightOnlyConfig(version=2)
    if weights == "float8":
        if products and device.type == "cuda" and torch.cuda.get_device_capability(device) >= FLOAT8_PRODUCTS:
            return quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
        return quantization.Float8WeightOnlyConfig()
    if device.type != "cuda":
        raise UsageError("--weights int4 needs a CUDA GPU; int8 and float8 run anywhere.")
    return quantization.Int4WeightOnlyConfig(group_size=INT4_GROUP, int4_packing_format="tile_packed_to_4d")


def arrange(transformer: Any, vae: Any, tuning: Tuning, device: torch.device) -> None:
    """Make the rest of a tuning so on a loaded base; `lighten` comes before this, adapters after.

    Raises:
        UsageError: there is no such attention backend here.
    """
    if tuning.attention_backend:
        _set_backend(transformer, tuning.attention_backend)
    if tuning.tiling:
        vae.enable_tiling()
    if tuning.compile:
        compile_blocks(transformer)
    if tuning.offload:
        transformer.enable_group_offload(
            onload_device=device,
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=device.type == "cuda",
        )


def regroup(transformer: Any) -> None:
    """Offloading knows the parameters that were there when it was set up: it is set up again where they change, and all
    blocks are back in the host's memory. Nothing happens without offloading."""
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

    _maybe_remove_and_reapply_group_offloading(transformer)


def _set_backend(transformer: Any, name: str) -> None:
    try:
        set_backend(transformer, name)
    except (ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UsageError(f"--attention-backend {name} cannot be used here: {reason}.") from None


def compile_blocks(transformer: Any, backend: str = "inductor", dynamic: bool | None = None) -> None:
    """Compile each kind of block once (regional compilation); `backend` and `dynamic` as `torch.compile` takes them.

    It is `forward` that is compiled and not the module, so that the hooks that tell layers apart stay outside.
    """
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for block in blocks_of(transformer):
        block.forward = torch.compile(block.forward, backend=backend, dynamic=dynamic)


@contextmanager
def step_cached(transformer: Any, kind: StepCache, steps: int, ratios: Sequence[float] | None) -> Iterator[None]:
    """While the block lasts, a result is denoised with a step cache; clean blocks must have run before.

    Args:
        ratios: for `magcache`, how the size of the blocks' residual changes from step to step (arXiv 2506.09045).
    """
    if kind == "none":
        yield
        return
    transformer.enable_cache(_cache_config(kind, steps, ratios))
    try:
        yield
    finally:
        transformer.disable_cache()


def _cache_config(kind: StepCache, steps: int, ratios: Sequence[float] | None) -> Any:
    import diffusers

    if kind == "first-block":
        return diffusers.FirstBlockCacheConfig()
    if kind == "taylorseer":
        return diffusers.TaylorSeerCacheConfig(use_lite_mode=True)  # predicts the last layer alone: hardly any memory
    assert ratios is not None  # `Editor.load` saw to it
    return diffusers.MagCacheConfig(num_inference_steps=steps, mag_ratios=list(ratios))


def cached_as(transformer: Any, name: str) -> Any:
    """A context in which a step cache, if there is one, knows the passes of this text from those of another."""
    return transformer.cache_context(name) if transformer.is_cache_enabled else nullcontext()
