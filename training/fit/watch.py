"""A training as people watch it: a live line, a TensorBoard log, a PNG of samples as they get better."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from infra.errors import OutputError
from training.fit.worker import Preparing

if TYPE_CHECKING:
    from training.fit.worker import Said


class Watch:
    """Listens to a training. `folder` gets events for TensorBoard and samples/; raises `OutputError` if it cannot."""

    def __init__(self, folder: Path, steps: int, held_out: bool, console: Console) -> None:
        self.folder, self.steps, self.console = folder, steps, console
        self.kind = "held out" if held_out else "on its own pairs"
        self.base: float | None = None
        self.best: float | None = None
        self.prepared: dict[int, Preparing] = {}  # the latest of every worker
        self.tenths = 0  # of the preparation that were told of
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.completed:.0f} of {task.total:.0f}  {task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        try:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}. Give another --log DIR.") from error

    def __enter__(self) -> Watch:
        from tensorboardX import SummaryWriter

        self.events = SummaryWriter(str(self.folder))
        self.bar.start()
        self.task = self.bar.add_task("starting", total=self.steps)
        return self

    def __exit__(self, *failure: object) -> None:
        self.bar.stop()
        self.events.close()

    def __call__(self, said: Said | Preparing) -> None:
        """Show one moment."""
        if isinstance(said, Preparing):
            self._preparing(said)
            return
        if math.isfinite(said.loss):
            self.events.add_scalar("loss", said.loss, said.step)
        if said.score:
            self._judged(said, said.score)
        self.bar.update(self.task, completed=said.step, description=self._line(said))

    def _preparing(self, said: Preparing) -> None:
        """What is done before the first step: on a terminal as it goes, elsewhere a line for every tenth of it."""
        if not said.total and said.worker == 0:
            self.prepared, self.tenths = {}, 0  # lost workers begin again
            self._preparation("loading the base", told=True)
            return
        self.prepared[said.worker] = said
        done, found = (sum(getattr(each, name) for each in self.prepared.values()) for name in ("done", "found"))
        if said.total:
            known = f" ({found:,} kept from an earlier run)" if found else ""
            tenths = 10 * done // said.total
            self._preparation(f"encoding {done:,} of {said.total:,} views{known}", told=tenths > self.tenths)
            self.tenths = tenths

    def _preparation(self, what: str, told: bool) -> None:
        self.bar.update(self.task, description=what)
        if told and not self.console.is_terminal:
            self.console.print(what, highlight=False)

    def _line(self, said: Said) -> str:
        loss = f"loss {said.loss:.3f}  " if math.isfinite(said.loss) else ""
        score = f"{self.kind} {self.best:.1f} dB, base alone {self.base:.1f}" if self.best and self.base else ""
        return loss + score

    def _judged(self, said: Said, score: dict[str, float]) -> None:
        balanced = score["balanced"]
        if said.step == 0:
            self.base = balanced
        else:
            self.best = max(balanced, self.best or balanced)
        for key, value in score.items():
            self.events.add_scalar(f"pairs/{key}", value, said.step)
        if said.sheet:
            (self.folder / "samples" / f"{said.step:06d}.png").write_bytes(said.sheet)
        if not self.console.is_terminal:
            what = "base alone" if said.step == 0 else f"step {said.step}"
            self.console.print(f"{what}  {self.kind} {balanced:.2f} dB", highlight=False)
