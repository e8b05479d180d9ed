"""From a base's folder to its models: with their weights on a device, or without any on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from infra.errors import BaseNotFound
from pipelines.transfer import tuning
from pipelines.transfer.bases import KINDS, check_tuning, class_of, unusual_of
from pipelines.transfer.family import Family
from pipelines.transfer.invariance import make_invariant
from pipelines.tuning import PLAIN, Tuning

Quantised = Literal["none", "float8"]


def load_family(folder: Path, device: torch.device, dtype: torch.dtype, tuned: Tuning = PLAIN) -> Family:
    """Load the models of a base folder onto a device.

    Raises:
        BaseNotFound: its weights are broken or do not fit its configuration.
        UsageError: what `tuned` asks for cannot be had here.
    """
    check_tuning(folder, tuned)
    try:
        return _load(folder, device, dtype, tuned)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseNotFound(f"The base in {folder.name} could not be loaded: {error}") from error


def _load(folder: Path, device: torch.device, dtype: torch.dtype, tuned: Tuning) -> Family:
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()  # of shards, in the middle of what a command has to say
    kind = KINDS[str(class_of(folder))]
    transformer = _transformer_class(folder).from_pretrained(folder / "transformer", torch_dtype=dtype)
    vae = getattr(diffusers, kind.vae).from_pretrained(folder / "vae", torch_dtype=dtype)
    vae.enable_slicing()  # one image at a time: little memory, and the batch cannot change the rounding
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    tuning.lighten(transformer, tuned.weights, device)
    transformer = transformer.eval() if tuned.offload else transformer.to(device).eval()
    family = kind.family(transformer, vae.to(device).eval(), scheduler, **unusual_of(folder))
    tuning.arrange(transformer, vae, tuned, device)
    make_invariant(transformer)
    family.device = device  # also where blocks wait elsewhere
    return family


def _transformer_class(folder: Path) -> Any:
    import diffusers  # takes seconds

    return getattr(diffusers, str(class_of(folder)))


def skeleton(folder: Path) -> Any:
    """A base's transformer without its weights, on the meta device: to see what it is made of."""
    model = _transformer_class(folder)
    with torch.device("meta"):
        return model.from_config(model.load_config(folder / "transformer"))


def outline(folder: Path, dtype: torch.dtype) -> Family:
    """A base without its weights, on the meta device: to run its passes there and see what they take.

    Raises:
        BaseNotFound: its configuration makes no models.
    """
    import diffusers

    kind = KINDS[str(class_of(folder))]
    vae_class = getattr(diffusers, kind.vae)
    try:
        transformer = skeleton(folder)
        with torch.device("meta"):
            vae = vae_class.from_config(vae_class.load_config(folder / "vae"))
    except (OSError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise BaseNotFound(f"The configuration of base {folder.name} makes no model: {error}") from error
    for model in (transformer, vae):
        torch.nn.Module.to(model, dtype)  # that of diffusers warns of layers to keep, and here there are none
        model.eval().requires_grad_(False)
    vae.enable_slicing()
    return kind.family(transformer, vae, diffusers.FlowMatchEulerDiscreteScheduler(), **unusual_of(folder))


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a base's transformer, as its configuration tells."""
    return {name: tuple(weight.shape) for name, weight in skeleton(folder).state_dict().items()}


def quantise(transformer: Any, kind: Quantised, dtype: torch.dtype) -> None:
    """Keep the weights of a transformer in fewer bits while it is trained, and compute in `dtype`: half the memory of
    bfloat16 for float8 (E4M3), at some cost in precision. Through diffusers' layerwise casting: gradients pass through
    it on any device, as they do not through the products of `tuning.lighten`."""
    if kind == "float8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
