"""Turning a run into a base: an ordinary diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from torch import Tensor

from infra.errors import UsageError
from training.base.architecture import Recipe, new_scheduler, new_transformer
from training.loop import FullCheckpoint

STEPS = 2  # denoising steps the miniature is used with
SHARD = "14MB"  # of weights in one file: small enough for everybody's upload limits


def export_base(run: Path, folder: Path, recipe: Recipe) -> None:
    """Write the averaged transformer and the autoencoder of `run` as a base. Works while the run is going on, from its
    newest checkpoint; raises `UsageError` before there is one."""
    path = run / "transformer" / FullCheckpoint.NAME
    if not path.exists():
        raise UsageError(f"There is no checkpoint in {path.parent} yet. One is written every few minutes of training.")
    transformer = new_transformer(recipe)
    average = torch.load(path, weights_only=True, map_location="cpu")["average"]
    transformer.load_state_dict(_part(average, "transformer"))
    write_base(transformer, AutoencoderKLFlux2.from_pretrained(run / "vae"), folder, recipe)


def write_base(transformer: Flux2Transformer2DModel, vae: AutoencoderKLFlux2, folder: Path, recipe: Recipe) -> None:
    """Write transformer (as bfloat16), autoencoder, scheduler and settings to `folder`."""
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer", max_shard_size=SHARD)
    vae.save_pretrained(folder / "vae")
    _forget_origin(folder / "vae" / "config.json")
    new_scheduler().save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _model_index())
    _write_json(folder / "edit_transfer.json", {"steps": STEPS, "attention": "prefix", "max_area": recipe.panel**2})


def _part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one of the modules that were trained together."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _forget_origin(config: Path) -> None:
    """A base does not say on which path of which machine it was made."""
    content = json.loads(config.read_text())
    content.pop("_name_or_path", None)
    _write_json(config, content)


def _model_index() -> dict[str, object]:
    return {
        "_class_name": "Flux2KleinPipeline",
        "is_distilled": True,  # no classifier-free guidance: the pair is always given
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
