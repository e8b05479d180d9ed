"""Grow the bundled base further, or from nothing: `python -m training.base.grow FOLDER --minutes 12 --device cuda`.

It goes on from the base of the phase before, if FOLDER has one, else from the bundled base, and makes it larger where
the phase is. It runs in the background, detached from the terminal; the same command says how far it is, or goes on
where it was killed. Every minute FOLDER/PHASE/base is renewed, an ordinary base in files of 14 MB at most, beside a
checkpoint with all there is to go on with. With --minutes the rate falls to zero by then, however fast the machine is.

Needs a checkout, torch, diffusers, transformers, accelerate, peft, safetensors, numpy, pillow and jinja2, and no
network; scikit-image for the structural similarities of the last table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import EditTransferError
from training.base.background import LOG, alone_in, start, working_in
from training.base.recipe import AUTOENCODER, LAST, PHASES, leading_to

if TYPE_CHECKING:
    from training.base.session import Order

SUMMARY, _, DETAILS = __doc__.partition("\n\n")


def main(arguments: list[str] | None = None) -> None:
    """From the command line: start in the background, or do the work."""
    options = _parse(arguments)
    if options.foreground:
        _grow(options)
    elif pid := working_in(options.folder):
        _say(f"Process {pid} is growing it already. {_how_to_follow(options.folder, pid)}")
    else:
        command = [sys.executable, "-m", "training.base.grow", *(arguments or sys.argv[1:]), "--foreground"]
        pid = start(command, options.folder)
        _say(f"Process {pid} grows it in the background. {_how_to_follow(options.folder, pid)}")


def _grow(options: argparse.Namespace) -> None:
    import torch

    from training.base.session import check, train

    torch.set_float32_matmul_precision("high")
    check(next(_orders(options)))
    with alone_in(options.folder):
        if options.from_nothing:
            _make_autoencoder(options)
        for order in _orders(options):
            train(order)
            _say(f"The base is in {order.folder / 'base'}.")


def _orders(options: argparse.Namespace) -> Iterator[Order]:
    """What to train, one phase after the other: where a phase starts is seen when the one before has ended."""
    from pipelines.transfer.bases import BUNDLED
    from training.base.session import Order

    for name in _phases(options):
        before, own = _start(options, name), options.folder / "vae"
        yield Order(
            phase=PHASES[name],
            folder=options.folder / name,
            vae=before / "vae" if before else own if own.exists() else BUNDLED / "vae",
            start=before,
            seconds=options.minutes and options.minutes * 60,
            seed=options.seed,
            device=options.device,
            compiled=not options.eager,
            processes=options.processes,
        )


def _phases(options: argparse.Namespace) -> list[str]:
    """The names of those to run; phases before the last one are over when they have been scored."""
    from training.base.look import SCORES

    leading = [name for name in leading_to(options.phase) if name != options.phase] if options.from_nothing else []
    return [name for name in leading if not (options.folder / name / SCORES).exists()] + [options.phase]


def _start(options: argparse.Namespace, name: str) -> Path | None:
    """The base that a phase goes on from."""
    from pipelines.transfer.bases import BUNDLED

    if (before := PHASES[name].after) is None:
        return None
    own = options.folder / before / "base"
    return own if own.exists() else BUNDLED


def _make_autoencoder(options: argparse.Namespace) -> None:
    from training.base.vae import make_autoencoder

    if not (options.folder / "vae").exists():
        make_autoencoder(
            options.folder / "autoencoder", options.folder / "vae", AUTOENCODER, options.seed, options.device, _say
        )


def _how_to_follow(folder: Path, pid: int) -> str:
    return f"Follow it with `tail -f {folder / LOG}`, stop it with `kill {pid}`; the same command goes on."


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=SUMMARY, epilog=DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder for each phase goes in it; resumed if there is one")
    parser.add_argument("--phase", choices=PHASES, default=LAST, help="of the recipe (training/base/recipe.py)")
    parser.add_argument("--from-nothing", action="store_true", help="the autoencoder and all phases that lead there")
    parser.add_argument(
        "--minutes", type=float, help="of training in each phase, compilation included, instead of its tuples"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="that train together on a CPU; their batches add up")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--foreground", action="store_true", help="in this terminal, and until it is done")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except EditTransferError as error:
        sys.exit(f"Error: {error}")
