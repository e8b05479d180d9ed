"""The training loop both parts share: seeded by step, checkpointed atomically, resumed by the same command."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[int], tuple[Tensor, int]]  # step -> loss, samples it covers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train. The rate warms up, stays, and falls to zero over the last `cooldown` share.

    With `muon`, matrices inside blocks are updated by Muon (Jordan et al., 2024; torch.optim.Muon), at AdamW's scale.
    """

    steps: int
    rate: float
    warmup: int = 200
    cooldown: float = 0.25
    weight_decay: float = 0.01
    muon: bool = False
    ema: float = 0.999
    clip: float = 1.0
    checkpoint_every: int = 250

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


@dataclass
class Progress:
    """One line of the log."""

    step: int
    loss: float
    samples: int
    samples_per_second: float


class Trainer:
    """Trains `model` towards lower `loss`; `average` is the exponential moving average of its weights."""

    def __init__(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        self.model = model
        self.plan = plan
        self.folder = folder
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimisers = _optimisers(model, plan)
        self.step = 0
        self.samples = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, loss: Loss) -> Iterator[Progress]:
        """Train to the end of the plan, one progress line every 50 steps."""
        started, seen, total = time.monotonic(), 0, 0.0
        while self.step < self.plan.steps:
            value, samples = self._advance(loss)
            seen, total = seen + samples, total + value
            if self.step % 50 == 0:
                progress = Progress(self.step, total / 50, self.samples, seen / (time.monotonic() - started))
                self._log(progress)
                yield progress
                started, seen, total = time.monotonic(), 0, 0.0
            if self.step % self.plan.checkpoint_every == 0 or self.step == self.plan.steps:
                self.save()

    def _advance(self, loss: Loss) -> tuple[float, int]:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.plan.rate_at(self.step)
        value, samples = loss(self.step)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        self.samples += samples
        return float(value.detach()), samples

    def _update_average(self) -> None:
        """EMA with a short memory at first, so that the start is forgotten quickly."""
        decay = min(self.plan.ema, (self.step + 1) / (self.step + 10))
        averages = [average.detach() for average in self.average.parameters()]
        torch._foreach_lerp_(averages, [weight.detach() for weight in self.model.parameters()], 1 - decay)

    def save(self) -> None:
        """Write the checkpoint; a reader sees the old one or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "samples": self.samples,
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.samples = state["step"], state["samples"]

    def _log(self, progress: Progress) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(vars(progress)) + "\n")


def _optimisers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    inside = [p for name, p in model.named_parameters() if plan.muon and "blocks" in name and p.ndim == 2]
    chosen = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True)
    if not inside:
        return [adam]
    muon = torch.optim.Muon(inside, lr=plan.rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


def generator_for(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Randomness of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)
