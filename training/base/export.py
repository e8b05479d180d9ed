"""Turning weights in training into a base: an ordinary diffusers folder, in files of 14 MB at most."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import Flux2Transformer2DModel
from torch import nn

from pipelines.transfer.bases import BUNDLED
from training.base.architecture import new_scheduler
from training.base.recipe import Phase
from training.loop import FullCheckpoint, Trainer

SHARD = "14MB"  # of weights in one file: small enough for everybody's upload limits
BASE = "base"  # in a phase's folder: a link to the newest of
KEPT = "base-*"
KEPT_BASES = 2  # whoever is loading the one before shall find all of it


class CheckpointWithBase(FullCheckpoint):
    """Everything to go on with, and beside it the averaged weights as a base."""

    def __init__(self, vae: Path, phase: Phase) -> None:
        self.vae = vae
        self.phase = phase

    def save(self, trainer: Trainer[nn.ModuleDict]) -> None:
        """Both are whole at every moment: a reader sees the old one or the new one."""
        super().save(trainer)
        folder = trainer.folder / KEPT.replace("*", str(trainer.step))
        average = copy.deepcopy(trainer.average["transformer"]).bfloat16().cpu()
        write_base(average, self.vae, folder, self.phase)
        link = trainer.folder / f"{BASE}.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.replace(trainer.folder / BASE)
        for old in sorted(trainer.folder.glob(KEPT), key=_step_of)[:-KEPT_BASES]:
            shutil.rmtree(old)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def write_base(transformer: Flux2Transformer2DModel, vae: Path, folder: Path, phase: Phase) -> None:
    """Write a base to `folder`: the transformer, the autoencoder in the folder `vae`, scheduler and settings."""
    transformer.save_pretrained(folder / "transformer", max_shard_size=SHARD)
    shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)
    _forget_origin(folder / "vae" / "config.json")
    new_scheduler().save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _model_index())
    _write_json(folder / "edit_transfer.json", base_settings(phase))


def base_settings(phase: Phase) -> dict[str, Any]:
    """How the base likes to be used: as the bundled one does, on the panels of its phase."""
    told = json.loads((BUNDLED / "edit_transfer.json").read_text())
    rehearsal = [family for family in told["rehearsal"] if family in phase.shares]
    return told | {"max_area": phase.panel**2, "rehearsal": rehearsal}


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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
