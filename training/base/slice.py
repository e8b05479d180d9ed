"""Train for some minutes from a small checkpoint and leave a small one: for machines that are lent for minutes.

    python -m training.base.slice FOLDER --minutes 9 --device cuda

Needs a checkout with torch, diffusers, peft and safetensors, and no network. The first slice starts anew; each later
one goes on from what the last left in FOLDER: the transformer's weights as bfloat16 in files of 14 MB at most, without
the optimiser's state, which warms up again in seconds. The last slice is run with --cool: the rate falls to zero, and
`--export BASE` writes a base that everything else loads. Every slice ends with the table of all families.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.transfer.bases import BUNDLED
from training.base.architecture import RECIPES
from training.base.export import SHARD, write_base
from training.base.loop import Trainer
from training.base.session import Order, Session, say

STATE = "slice.json"
HEADS = "heads.safetensors"


def main(arguments: list[str] | None = None) -> None:
    """One slice, from the command line."""
    options, started = _parse(arguments), time.monotonic()
    session = Session(_order(options))
    for progress in session.trainer.run(session.loss):
        session.tell(progress)
    session.look()
    if options.export:
        vae = AutoencoderKLFlux2.from_pretrained(options.vae)
        write_base(session.trainer.average["transformer"], vae, options.export, session.order.recipe)
    say(f"{time.monotonic() - started:.0f} s in all")


class SmallCheckpoint:
    """The weights as bfloat16, in files of 14 MB at most; the average and the optimisers start anew."""

    def save(self, trainer: Trainer[nn.ModuleDict]) -> None:
        """The file that says how far they are comes last."""
        transformer, heads = trainer.model["transformer"], trainer.model["heads"]
        copy = Flux2Transformer2DModel.from_config(transformer.config)
        copy.load_state_dict(transformer.state_dict())
        copy.to(torch.bfloat16).save_pretrained(trainer.folder, max_shard_size=SHARD)
        save_file(
            {name: weight.to("cpu", torch.bfloat16) for name, weight in heads.state_dict().items()},
            trainer.folder / HEADS,
        )
        (trainer.folder / STATE).write_text(json.dumps({"step": trainer.step, "samples": trainer.samples}) + "\n")

    def load(self, trainer: Trainer[nn.ModuleDict]) -> None:
        """Nothing happens where no slice was trained yet."""
        if not (trainer.folder / STATE).exists():
            return
        state = json.loads((trainer.folder / STATE).read_text())
        weights = Flux2Transformer2DModel.from_pretrained(trainer.folder).state_dict()
        heads = load_file(trainer.folder / HEADS)
        for trained in (trainer.model, trainer.average):
            trained["transformer"].load_state_dict(weights)
            trained["heads"].load_state_dict(heads)
        trainer.step = trainer.first_step = state["step"]
        trainer.samples = state["samples"]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkpoint, log and samples; resumed if there is one")
    parser.add_argument("--minutes", type=float, default=9.0, help="of training, compilation included")
    parser.add_argument("--recipe", choices=RECIPES, default="gpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae", type=Path, default=BUNDLED / "vae", help="folder of the autoencoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cool", action="store_true", help="let the rate fall to zero by the end of this slice")
    parser.add_argument("--export", type=Path, help="also write a base here")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    return parser.parse_args(arguments)


def _order(options: argparse.Namespace) -> Order:
    return Order(
        folder=options.folder,
        vae=options.vae,
        recipe=RECIPES[options.recipe],
        seconds=options.minutes * 60,
        cooldown=0.5 if options.cool else 0.0,
        checkpoint=SmallCheckpoint(),
        seed=options.seed,
        device=options.device,
        compiled=not options.eager,
    )


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    main(sys.argv[1:])
