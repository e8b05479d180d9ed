"""The training loop both parts share: seeded by step, checkpointed atomically, resumed by the same command."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.attention import SDPBackend, sdpa_kernel

Model = TypeVar("Model", bound=nn.Module)
Loss = Callable[[int], tuple[Tensor, int]]  # step -> loss, samples it covers
Notes = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train. The rate warms up, stays, and falls to zero over the last `cooldown` share of
    the steps, or of the `seconds` of a run that is bound by time, in all its sessions together.

    With `muon`, matrices inside blocks are updated by Muon (Jordan et al., 2024; torch.optim.Muon), at AdamW's scale.
    """

    steps: int
    rate: float
    seconds: float | None = None
    warmup: int = 200  # steps
    cooldown: float = 0.25
    weight_decay: float = 0.01
    muon: bool = False
    ema: float = 0.999
    clip: float = 1.0
    checkpoint_every: float = 60.0  # seconds
    log_every: int = 50  # steps

    def rate_at(self, step: int, done: float) -> float:
        """Learning rate of a step, when a share `done` in [0, 1] of the run lies behind."""
        left = (1 - done) / self.cooldown if self.cooldown else 1.0
        return self.rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


class Checkpoint(Protocol):
    """What of a training survives, and where."""

    def save(self, trainer: Trainer[Any]) -> None: ...

    def load(self, trainer: Trainer[Any]) -> None: ...


@dataclass
class Progress:
    """One line of the log."""

    step: int
    done: float  # share of the run
    loss: float
    samples: int
    samples_per_second: float
    rate: float = 0.0
    notes: Notes = field(default_factory=dict)

    def line(self) -> str:
        """For the terminal."""
        return (
            f"step {self.step}  {self.done:.0%}  loss {self.loss:.4f}  {self.samples:,} samples"
            f"  {self.samples_per_second:.0f} a second"
        )


class Trainer(Generic[Model]):
    """Trains `model` towards lower `loss`; `average` is the exponential moving average of its weights."""

    def __init__(self, model: Model, schedule: Schedule, folder: Path, checkpoint: Checkpoint | None = None) -> None:
        self.model = model
        self.schedule = schedule
        self.folder = folder
        self.began = self.saved = time.monotonic()
        self.earlier = 0.0  # seconds trained in sessions before this one
        self.checkpoint = checkpoint or FullCheckpoint()
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimisers = _optimisers(model, schedule)
        self.step = 0
        self.samples = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint.load(self)

    def run(self, loss: Loss, notes: Callable[[], Notes] = dict) -> Iterator[Progress]:
        """Train to the end of the plan or of its time, one progress line every `log_every` steps, with what `notes`
        says by then; saves at the end."""
        begun, seen, total = time.monotonic(), 0, torch.zeros(())
        while (done := self._done()) < 1:
            rate = self.schedule.rate_at(self.step, done)
            value, samples = self._advance(loss, rate)
            seen, total = seen + samples, total.to(value.device) + value  # no waiting for the device at every step
            if self.step % self.schedule.log_every == 0:
                mean = float(total) / self.schedule.log_every
                speed = seen / (time.monotonic() - begun)
                progress = Progress(self.step, done, mean, self.samples, speed, rate, notes())
                self._log(progress)
                yield progress
                begun, seen, total = time.monotonic(), 0, torch.zeros(())
            if time.monotonic() - self.saved >= self.schedule.checkpoint_every:
                self.save()
        self.save()

    @property
    def seconds(self) -> float:
        """How long it has trained, in all sessions."""
        return self.earlier + time.monotonic() - self.began

    def _done(self) -> float:
        """Which share of the run lies behind; all processes agree on it."""
        done = self.step / self.schedule.steps
        if self.schedule.seconds is not None:
            agreed = torch.tensor(self.seconds / self.schedule.seconds)
            if dist.is_initialized():
                dist.broadcast(agreed, 0)
            done = max(done, float(agreed))
        return done

    def _advance(self, loss: Loss, rate: float) -> tuple[Tensor, int]:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        with attention_kernels():
            value, samples = loss(self.step)
            value.backward()
        samples *= _average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        self.samples += samples
        return value.detach(), samples

    def _update_average(self) -> None:
        """EMA with a short memory at first, so that the start is forgotten quickly."""
        decay = min(self.schedule.ema, (self.step + 1) / (self.step + 10))
        averages = [average.detach() for average in self.average.parameters()]
        torch._foreach_lerp_(averages, [weight.detach() for weight in self.model.parameters()], 1 - decay)

    def state(self) -> dict[str, Any]:
        """Everything that decides how the training goes on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "samples": self.samples,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.samples = state["step"], state["samples"]

    def save(self) -> None:
        """Write the checkpoint, once for all processes."""
        if process() == 0:
            self.checkpoint.save(self)
        self.saved = time.monotonic()

    def _log(self, progress: Progress) -> None:
        if process() > 0:
            return
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"seconds": round(self.seconds, 1)} | vars(progress)) + "\n")


class NoCheckpoint:
    """Nothing: whoever runs the trainer keeps its state."""

    def save(self, trainer: Trainer[Any]) -> None:
        """Nothing is written."""

    def load(self, trainer: Trainer[Any]) -> None:
        """Nothing is read."""


class FullCheckpoint:
    """Everything, in one file: a resumed run goes on as if it had not stopped."""

    NAME = "checkpoint.pt"

    def save(self, trainer: Trainer[Any]) -> None:
        """A reader sees the old file or the new one."""
        partial = trainer.folder / f"{self.NAME}.partial"
        torch.save(trainer.state() | {"seconds": trainer.seconds}, partial)
        partial.replace(trainer.folder / self.NAME)

    def load(self, trainer: Trainer[Any]) -> None:
        """Nothing happens where there is no checkpoint yet."""
        path = trainer.folder / self.NAME
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location="cpu")
        trainer.restore(state)
        trainer.earlier = state["seconds"]


def attention_kernels() -> AbstractContextManager[None]:
    """Those that training may use: cuDNN's fails in the backward pass of short sequences ("mha_graph.execute ... good",
    torch 2.11 on Hopper)."""
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _optimisers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    inside = [p for name, p in model.named_parameters() if schedule.muon and "blocks" in name and p.ndim == 2]
    chosen = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(
        others, lr=schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
    )
    if not inside:
        return [adam]
    muon = torch.optim.Muon(
        inside, lr=schedule.rate, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [adam, muon]


def quick_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are worth it: a CPU without the instructions takes 10 to 100 times as long."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def process() -> int:
    """Number of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def _average_gradients(model: nn.Module) -> int:
    """Average over all processes, each of which saw tuples of its own; returns how many there are."""
    if not dist.is_initialized():
        return 1
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = _flatten_dense_tensors(gradients)
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    torch._foreach_copy_(gradients, _unflatten_dense_tensors(flat, gradients))
    return dist.get_world_size()


def generator_for(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Randomness of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)
