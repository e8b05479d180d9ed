"""Fitting an adapter to pairs, in one process or in one of several that train together. No Ray in here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from infra.errors import EditTransferError
from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from training.fit.draw import Draw
from training.fit.judge import Judged, Score, hold_out, judge, trials
from training.fit.lora import LoraWeights, swapped
from training.fit.loss import group_loss
from training.fit.settings import Settings
from training.fit.views import Glance, View, encode, glances, looks_of
from training.loop import NoCheckpoint, Progress, Schedule, Trainer, generator_for, process

LOG_EVERY = 10  # steps
KEPT_WEIGHT = 10.0  # of a change where nothing should change; such changes are small beside the errors of a new edit


@dataclass(frozen=True)
class Moment:
    """How far it is. `judged` says that the pairs were looked at, and `score` how well they came out (in the first
    process only); `over` that there is nothing left to do."""

    progress: Progress
    judged: bool = False
    over: bool = False
    score: Score | None = None
    pictures: tuple[tuple[Image.Image, ...], ...] = ()


class Fit:
    """Trains a LoRA on an editor's base. The weights with the best score on the held-out pairs are kept.

    Args:
        editor: of the base, without any adapter; its transformer gets the LoRA.
        pairs: all usable ones; some of them are held out from training.
        kept: pairs of other edits, with which the editor shall go on doing what the base alone does.
        settings: see there.
        folder: for the log of the loop.
        encoded: gives the views that are wanted.

    Raises:
        ImageError: a picture is too small or too elongated for the base.
    """

    def __init__(
        self,
        editor: Editor,
        pairs: Sequence[Pair],
        kept: Sequence[Pair],
        settings: Settings,
        folder: Path,
        encoded: Callable[[Editor, Sequence[Glance]], list[View]] = encode,
    ) -> None:
        self.editor = editor
        self.settings = settings
        self.held_out = hold_out(pairs)
        names = {pair.digest for pair in self.held_out}
        known = [pair for pair in pairs if pair.digest not in names]
        self.trials = trials(self.held_out or known, known, settings.shown)
        self.weights = LoraWeights(editor.family.transformer, settings.rank, settings.seed)
        if settings.checkpointing:
            editor.family.transformer.enable_gradient_checkpointing()
        self.trainer = Trainer(self.weights, _schedule(settings), folder, NoCheckpoint())
        learned = glances(known, settings.views, mirrored=settings.mirrored, seed=settings.seed)
        others = glances(kept, 1)
        views = encoded(editor, [*learned, *others])
        self.draw = Draw(looks_of(learned, views[: len(learned)]), settings.queries, settings.shown)
        self.keep = Draw(looks_of(others, views[len(learned) :]), settings.kept_queries, 1) if kept else None
        self.best: LoraWeights = copy.deepcopy(self.trainer.average)
        self.curve: list[dict[str, float]] = []
        self.stale = 0
        self.over = False

    def run(self) -> Iterator[Moment]:
        """Train until the steps are used up or the score has stopped rising; starts with a look at the base alone."""
        if not self.curve:
            yield self._look(Progress(0, 0.0, math.nan, 0, 0.0))
        if self.over:
            yield self._final()
            return
        for progress in self.trainer.run(self._loss):
            if progress.step % self.settings.judge_every and progress.step < self.settings.steps:
                yield Moment(progress)
                continue
            yield self._look(progress)
            if self.over:
                return

    def _loss(self, step: int) -> tuple[Tensor, int]:
        settings, family, editor = self.settings, self.editor.family, self.editor
        generator = generator_for(settings.seed * 1000 + process(), step, torch.device("cpu"))
        with torch.autocast(family.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            group = self.draw(generator)
            loss = group_loss(family, editor.attention, editor.default_steps, group, generator)
            if self.keep:
                other = self.keep(generator)
                kept = group_loss(family, editor.attention, editor.default_steps, other, generator, keep=True)
                loss = loss + KEPT_WEIGHT * kept
        return loss, len(group.query)

    def _look(self, progress: Progress) -> Moment:
        """Judge the average so far, in the first process; all processes learn whether it is over."""
        judged = None
        self._refuse_diverged(progress)
        if process() == 0:
            with swapped(self.weights, self.trainer.average):
                judged = judge(self.editor, self.trials)
            self._keep(progress, judged.score)
        else:
            self.curve.append({"step": progress.step})
        stopped = self._agreed(bool(self.held_out) and self.stale >= self.settings.patience)
        self.over = stopped or progress.step >= self.settings.steps
        return self._final(progress) if self.over else _moment(progress, judged, over=False)

    def _refuse_diverged(self, progress: Progress) -> None:
        """In all processes at once: their weights are the same."""
        if not all(weight.isfinite().all() for weight in self.weights.weights):
            raise EditTransferError(
                f"The training diverged before step {progress.step}: its weights are no longer finite. Lower the --rate"
                f" of {self.settings.rate:g}."
            )

    def _agreed(self, decision: bool) -> bool:
        """What the first process decided."""
        told = torch.tensor(float(decision), device=self.editor.family.device)
        if dist.is_initialized():
            dist.broadcast(told, 0)
        return bool(told)

    def _keep(self, progress: Progress, score: Score) -> None:
        trained = [point["balanced"] for point in self.curve[1:]]
        self.curve.append({"step": progress.step, "loss": progress.loss, **asdict(score)})
        if progress.step == 0:
            return
        if not self.held_out or score.balanced > max(trained, default=-math.inf):
            self.best.load_state_dict(self.trainer.average.state_dict())
            self.stale = 0
        else:
            self.stale += 1

    def _final(self, progress: Progress | None = None) -> Moment:
        """The last moment: the transformer is left with the best weights, and judged with them once more."""
        progress = progress or Progress(self.trainer.step, 1.0, math.nan, self.trainer.samples, 0.0)
        for weight, best in zip(self.weights.weights, self.best.weights, strict=True):
            weight.data.copy_(best.data)
        return _moment(progress, judge(self.editor, self.trials) if process() == 0 else None, over=True)

    def state(self) -> dict[str, Any]:
        """Everything that decides how it goes on."""
        return {
            "trainer": self.trainer.state(),
            "best": self.best.state_dict(),
            "curve": self.curve,
            "stale": self.stale,
            "over": self.over,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there: what follows is what would have followed."""
        self.trainer.restore(state["trainer"])
        self.best.load_state_dict(state["best"])
        self.curve, self.stale, self.over = state["curve"], state["stale"], state["over"]


def _schedule(settings: Settings) -> Schedule:
    return Schedule(
        steps=settings.steps,
        rate=settings.rate,
        warmup=min(20, settings.steps),
        cooldown=settings.cooldown,
        ema=settings.ema,
        weight_decay=0.0,
        log_every=math.gcd(LOG_EVERY, settings.judge_every, settings.steps),  # every look, and the end, are moments
    )


def _moment(progress: Progress, judged: Judged | None, *, over: bool) -> Moment:
    if judged is None:
        return Moment(progress, judged=True, over=over)
    return Moment(progress, judged=True, over=over, score=judged.score, pictures=judged.pictures)
