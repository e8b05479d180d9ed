"""One training session of the transformer, alone or with other processes that each see tuples of their own."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLFlux2
from torch import nn

from infra.errors import UsageError
from pipelines.transfer import Editor
from pipelines.transfer.flux2 import Flux2
from training import evaluation
from training.base.architecture import HEAD, Recipe, new_scheduler, new_transformer
from training.base.blockpca import LinearEncoder
from training.base.export import STEPS
from training.base.heads import PairReader, Preview
from training.base.look import look, table
from training.base.transfer import TransferLoss
from training.base.vae import draw_images
from training.loop import Checkpoint, FullCheckpoint, Progress, Schedule, Trainer, generator_for, process
from training.scenes import COMPOSITIONS, FAMILIES

READ_LAYERS = (2, 3, 4)  # whose values the auxiliary head reads: late enough to know, early enough to be of use
FITTED = 800  # images to which the linear encoder is fitted
SEED_OF_PROCESS = 1009  # apart from the next one's
DRAWS = 5  # batches drawn to see what drawing costs


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to train, where and for how long.

    `folder` takes checkpoints and logs, and is resumed; `vae` is the folder of the autoencoder. With `seconds` the
    run stops after so long. The rate falls to zero over the last `cooldown` share of the run. `processes` train
    together on a CPU, one core each.
    """

    folder: Path
    vae: Path
    recipe: Recipe
    steps: int = 1_000_000_000
    seconds: float | None = None
    cooldown: float = 0.25
    checkpoint: Checkpoint = field(default_factory=FullCheckpoint)
    seed: int = 0
    device: str = "cpu"
    compiled: bool = True
    processes: int = 1


def train(order: Order) -> None:
    """Train to the end, a progress line now and then."""
    if order.processes == 1:
        _train(order)
        return
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(_train_together, (order, meeting), order.processes)


def _train_together(rank: int, order: Order, meeting: str) -> None:
    # Sent when the parent dies; the background jobs of a shell would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # two threads in each of two processes would wait for each other at every kernel
    torch.set_float32_matmul_precision("high")
    dist.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=order.processes)
    _train(order)
    dist.destroy_process_group()


def _train(order: Order) -> None:
    session = Session(order)
    for progress in session.trainer.run(session.loss):
        if process() == 0:
            session.tell(progress)


def say(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Session:
    """A transformer of a recipe, its trainer, and the loss it learns from."""

    def __init__(self, order: Order) -> None:
        _check(order)
        self.order, recipe, device = order, order.recipe, torch.device(order.device)
        transformer = new_transformer(recipe, order.seed).to(device)
        if device.type == "cpu":  # its flash kernel is slow to differentiate on sequences this short
            transformer.set_attention_backend("_native_math")
        autoencoder = AutoencoderKLFlux2.from_pretrained(order.vae).to(device).requires_grad_(False)
        self.family = Flux2(transformer, autoencoder, new_scheduler())
        layers = tuple(layer for layer in READ_LAYERS if layer <= recipe.single) or (recipe.single,)
        reader = PairReader(recipe.heads * HEAD, len(recipe.shares), layers).to(device)
        preview = Preview(recipe.heads * HEAD, self.family.channels).to(device)
        heads = nn.ModuleDict({"reader": reader, "preview": preview})
        trained = nn.ModuleDict({"transformer": transformer, "heads": heads})
        self.trainer = Trainer(trained, _schedule(order), order.folder, order.checkpoint)
        images = draw_images(FITTED, generator_for(order.seed + 3, 0, device))
        encode = LinearEncoder(torch.no_grad()(self.family.encode), images, self.family.multiple)
        seed = order.seed + SEED_OF_PROCESS * process()
        self.loss = TransferLoss(self.family, reader, preview, encode, recipe, seed)
        if order.compiled:
            torch._dynamo.config.suppress_errors = True  # on a machine lent for minutes, slow is better than nothing
            transformer.compile(dynamic=False)

    def tell(self, progress: Progress) -> None:
        """Print the progress; now and then also what drawing costs and how well every family does."""
        say(progress.line())
        if progress.step % self.order.recipe.look_every == 0:
            say(f"drawing takes {self.drawing_share(progress):.0%} of a step")
            self.look()

    def drawing_share(self, progress: Progress) -> float:
        """Time to render and encode a batch, as a share of the time of a whole step."""
        started, together = time.monotonic(), self.order.recipe.drawn_together
        for index in range(DRAWS):
            drawn = self.loss.draw(index * together)
            drawn.truth.sum().item()  # wait for the device
        one_step = self.order.processes * self.order.recipe.batch / progress.samples_per_second
        return (time.monotonic() - started) / (DRAWS * together) / one_step

    def look(self) -> list[evaluation.Row]:
        """Score the averaged weights, print the table, renew the pages."""
        plan = evaluation.Plan(families=(*FAMILIES, *COMPOSITIONS), cases=self.order.recipe.look_cases)
        rows = look(self.editor(), plan, self.order.folder, self.trainer.step)
        say(table(rows))
        return rows

    def editor(self) -> Editor:
        """An editor with the averaged weights."""
        average = self.trainer.average["transformer"].eval()
        return Editor(
            Flux2(average, self.family.vae, new_scheduler()),
            base="in training",
            revision=str(self.trainer.step),
            attention="prefix",
            max_area=self.order.recipe.panel**2,
            default_steps=STEPS,
        )


def _check(order: Order) -> None:
    if order.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU on this machine. Use --device cpu.")
    if order.device == "cuda" and order.processes > 1:
        raise UsageError("Several processes train on a CPU only. Leave out --processes.")
    if not (order.vae / "config.json").exists():
        raise UsageError(
            f"There is no autoencoder in {order.vae}. Make it first:"
            f" python -m training.base.make vae {order.vae.parent}"
        )


def _schedule(order: Order) -> Schedule:
    recipe = order.recipe
    return Schedule(
        steps=order.steps,
        rate=recipe.rate,
        seconds=order.seconds,
        cooldown=order.cooldown,
        muon=True,
        checkpoint_every=recipe.checkpoint_every,
        log_every=min(50, recipe.checkpoint_every),
    )
