"""One training session of the transformer, alone or with other processes that each see tuples of their own."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from torch import nn

from infra.errors import UsageError
from pipelines.transfer import Editor
from pipelines.transfer.attention import set_backend
from pipelines.transfer.flux2 import Flux2
from pipelines.transfer.tuning import compile_blocks
from training import evaluation
from training.base.architecture import HEAD, new_scheduler, new_transformer
from training.base.blockpca import LinearEncoder
from training.base.export import CheckpointWithBase, base_settings
from training.base.heads import PairReader, Preview
from training.base.look import look, table, write_page
from training.base.recipe import Phase
from training.base.transfer import TransferLoss
from training.base.vae import draw_images
from training.base.widen import check_growth, widen
from training.loop import Progress, Schedule, Trainer, generator_for, process, quick_bfloat16

READ_LAYERS = (2, 3, 4)  # whose values the auxiliary head reads: late enough to know, early enough to be of use
FITTED = 800  # images to which the linear encoder is fitted
SEED_OF_PROCESS = 1009  # apart from the next one's
ENDLESS = 1_000_000_000  # steps


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to train, where and for how long.

    phase      size and diet
    folder     takes checkpoints, bases and logs, and is resumed
    vae        folder of the autoencoder
    start      base to go on from; None begins with random weights
    seconds    of training in all sessions together, instead of the phase's tuples
    compiled   by torch.compile: a minute once, then faster
    processes  that train together on a CPU, one core each; their batches add up
    """

    phase: Phase
    folder: Path
    vae: Path
    start: Path | None = None
    seconds: float | None = None
    seed: int = 0
    device: str = "cpu"
    compiled: bool = True
    processes: int = 1


def train(order: Order) -> None:
    """Train to the end, a progress line now and then; then score every family. Raises what `check` raises."""
    check(order)
    if order.processes == 1:
        _train(order)
        return
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(_train_together, (order, meeting), order.processes)


def check(order: Order) -> None:
    """Refuse what cannot be done.

    Raises:
        UsageError: there is no such device, or the phase is smaller than the base to go on from.
    """
    if order.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU on this machine. Use --device cpu.")
    if order.device == "cuda" and order.processes > 1:
        raise UsageError("Several processes train on a CPU only. Leave out --processes.")
    if order.start:
        check_growth(Flux2Transformer2DModel.load_config(order.start / "transformer"), order.phase)


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
    for progress in session.trainer.run(session.loss, session.loss.against_copying.tell):
        if process() == 0:
            session.tell(progress)
    if process() == 0:
        session.look()


def say(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Session:
    """A transformer, its trainer, and the loss it learns from."""

    def __init__(self, order: Order) -> None:
        self.order, phase, device = order, order.phase, torch.device(order.device)
        autoencoder = AutoencoderKLFlux2.from_pretrained(order.vae).requires_grad_(False)
        self.family = Flux2(_transformer(order).to(device), autoencoder, new_scheduler())
        if order.device == "cpu":  # its flash kernel is slow to differentiate on sequences this short
            set_backend(self.family.transformer, "_native_math")
        encode = _encoder(self.family, order)
        autoencoder.to(device)
        reader, preview = _heads(self.family, order)
        trained = nn.ModuleDict(
            {"transformer": self.family.transformer, "heads": nn.ModuleDict({"reader": reader, "preview": preview})}
        )
        self.trainer = Trainer(trained, _schedule(order), order.folder, CheckpointWithBase(order.vae, phase))
        seed = order.seed + SEED_OF_PROCESS * process()
        self.loss = TransferLoss(self.family, reader, preview, encode, phase, seed)
        if order.compiled:
            torch._dynamo.config.suppress_errors = True  # on a machine lent for minutes, slow is better than nothing
            compile_blocks(self.family.transformer, dynamic=False)

    def tell(self, progress: Progress) -> None:
        """Print how far it is, and how well every family does; renew the page."""
        say(progress.line())
        if progress.notes:
            shares = (f"{family} {share:.0%}" for family, share in progress.notes.items())
            say(f"  error of changed tokens against copying: {', '.join(shares)}")
        write_page(self.order.folder)

    def look(self) -> None:
        """Score the averaged weights on all families of the phase, print the table, renew the page."""
        plan = evaluation.Plan(families=tuple(self.order.phase.shares), cases=self.order.phase.look_cases)
        say(table(look(self.editor(), plan, self.order.folder, self.trainer.step)))

    def editor(self) -> Editor:
        """An editor with the averaged weights."""
        average, told = self.trainer.average["transformer"].eval(), base_settings(self.order.phase)
        return Editor(
            Flux2(average, self.family.vae, new_scheduler()),
            base="in training",
            revision=str(self.trainer.step),
            attention=told["attention"],
            max_area=told["max_area"],
            default_steps=told["steps"],
        )


def _transformer(order: Order) -> Flux2Transformer2DModel:
    if order.start is None:
        return new_transformer(order.phase, order.seed)
    before = Flux2Transformer2DModel.from_pretrained(order.start / "transformer", torch_dtype=torch.float32)
    return widen(before, order.phase, order.seed)


def _heads(family: Flux2, order: Order) -> tuple[PairReader, Preview]:
    """New auxiliary heads, the same in all processes."""
    torch.manual_seed(order.seed)
    phase, channels = order.phase, order.phase.heads * HEAD
    layers = tuple(layer for layer in READ_LAYERS if layer <= phase.single) or (phase.single,)
    reader, preview = PairReader(channels, len(phase.shares), layers), Preview(channels, family.channels)
    return reader.to(family.device), preview.to(family.device)


def _encoder(family: Flux2, order: Order) -> LinearEncoder:
    """Fitted on the CPU, where the autoencoder still is, so that it is the same everywhere."""
    images = draw_images(FITTED, generator_for(order.seed + 3, 0, torch.device("cpu")))
    return LinearEncoder(torch.no_grad()(family.encode), images, family.multiple).to(family.device)


def _schedule(order: Order) -> Schedule:
    phase = order.phase
    timed = order.seconds is not None
    return Schedule(
        steps=ENDLESS if timed else math.ceil(phase.tuples / (phase.batch * order.processes)),
        rate=phase.rate,
        seconds=order.seconds,
        warmup=phase.warmup,
        cooldown=phase.cooldown,
        muon=phase.muon and quick_bfloat16(torch.device(order.device)),  # torch's orthogonalises in bfloat16
        ema=phase.ema,
        checkpoint_every=phase.keep_seconds,
        log_every=phase.tell_every,
    )
