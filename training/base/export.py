"""Turning a run into a base: an ordinary diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2

from training.base.architecture import PANEL, new_scheduler, new_transformer

STEPS = 2  # denoising steps the miniature is used with


def export_base(run: Path, folder: Path) -> None:
    """Write averaged transformer (bfloat16), autoencoder, scheduler and settings of `run` to `folder`.

    Works while the run is going on, from its newest checkpoint.
    """
    transformer = new_transformer()
    checkpoint = torch.load(run / "transformer" / "checkpoint.pt", weights_only=True, map_location="cpu")
    transformer.load_state_dict(checkpoint["average"])
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    AutoencoderKLFlux2.from_pretrained(run / "vae").save_pretrained(folder / "vae")
    _forget_origin(folder / "vae" / "config.json")
    new_scheduler().save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _model_index())
    _write_json(folder / "edit_transfer.json", {"steps": STEPS, "attention": "prefix", "max_area": PANEL * PANEL})


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
