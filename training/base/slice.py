"""Train for some minutes from a small checkpoint and leave a small one: for machines that are lent for minutes.

    python -m training.base.slice FOLDER --minutes 7.5 --device cuda

Needs a checkout, torch, diffusers, peft, safetensors, numpy, pillow and jinja2, and no network. The first slice starts
anew; each later one goes on from what the last left in FOLDER: seven files, the weights among them as bfloat16 in parts
of 14 MB at most, without the optimiser's state, which warms up again in seconds. The last slice is run with --cool: the
rate falls to zero, and `--export BASE` writes a base that everything else loads. Every slice ends with the table of all
families. A slice that is killed leaves what it had at its last checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infra.errors import EditTransferError, UsageError
from pipelines.transfer.bases import BUNDLED
from training.base.architecture import RECIPES
from training.base.export import write_base
from training.base.session import Order, Session
from training.loop import Trainer

PART_BYTES = 14_000_000
PART = "weights-{}.safetensors"


def main(arguments: list[str] | None = None) -> None:
    """One slice, from the command line. What takes longest to make is written first."""
    options = _parse(arguments)
    session = Session(_order(options))
    for progress in session.trainer.run(session.loss):
        session.tell(progress)
    if options.export:
        average = copy.deepcopy(session.trainer.average["transformer"]).cpu()
        write_base(average, session.family.vae.cpu(), options.export, session.order.recipe)
        session.family.vae.to(options.device)
    session.look()


class SmallCheckpoint:
    """The weights as bfloat16 in parts; the average and the optimisers start anew."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe

    def save(self, trainer: Trainer[nn.ModuleDict]) -> None:
        """All parts lie beside the old ones before the first of these is replaced."""
        parts = _split({name: w.to("cpu", torch.bfloat16) for name, w in trainer.model.state_dict().items()})
        told = {"recipe": self.recipe, "step": str(trainer.step), "samples": str(trainer.samples)}
        for index, part in enumerate(parts):
            save_file(part, trainer.folder / f"{PART.format(index)}.partial", told | {"parts": str(len(parts))})
        for index in range(len(parts)):
            (trainer.folder / f"{PART.format(index)}.partial").replace(trainer.folder / PART.format(index))

    def load(self, trainer: Trainer[nn.ModuleDict]) -> None:
        """Nothing happens where no slice was trained yet.

        Raises:
            UsageError: the parts are of different steps, or of another recipe.
        """
        first = trainer.folder / PART.format(0)
        if not first.exists():
            return
        told = _told(first)
        paths = [trainer.folder / PART.format(index) for index in range(int(told["parts"]))]
        if told["recipe"] != self.recipe or any(not path.exists() or _told(path) != told for path in paths):
            raise UsageError(
                f"The weights in {trainer.folder} do not go on with the recipe {self.recipe}: they were left by"
                f" {told['recipe']}, or some parts are missing. Use another folder, or the same recipe and all parts."
            )
        weights = {name: weight for path in paths for name, weight in load_file(path).items()}
        trainer.model.load_state_dict(weights)
        trainer.average.load_state_dict(weights)
        trainer.step = trainer.first_step = int(told["step"])
        trainer.samples = int(told["samples"])


def _told(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def _split(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The weights in order, in as few parts as `PART_BYTES` allows."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, weight in weights.items():
        if parts[-1] and sum(w.nbytes for w in parts[-1].values()) + weight.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = weight
    return parts


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="weights, log and samples; resumed if there are some")
    parser.add_argument(
        "--minutes", type=float, default=7.5, help="of training, compilation included; start and table take one more"
    )
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
        checkpoint=SmallCheckpoint(options.recipe),
        seed=options.seed,
        device=options.device,
        compiled=not options.eager,
    )


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    try:
        main(sys.argv[1:])
    except EditTransferError as error:
        sys.exit(f"Error: {error}")
