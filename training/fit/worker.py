"""What every Ray Train worker does: fit, tell the driver how it goes, leave checkpoints in the store."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.errors import EditTransferError, ImageError, PairError
from pipelines.pairs.check import Pair
from training.fit.settings import Settings

STATE, WEIGHTS, OUTCOME, SAMPLES = "state.pt", "adapter.safetensors", "outcome.json", "samples.png"
COLUMNS = ("before", "after", "query", "result", "truth")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be fitted.

    base     as Editor.load takes it
    kept     pairs of edits to keep
    device   `cuda` or `cpu`
    threads  for each worker on a CPU
    encodings  address of a folder for the encoded views
    """

    base: str | None
    pairs: tuple[Pair, ...]
    kept: tuple[Pair, ...]
    settings: Settings
    device: str
    threads: int
    encodings: str = ""


@dataclass(frozen=True, kw_only=True)
class Preparing:
    """What a worker does before the first step. It has `done` its share of the `total` views that have to be encoded,
    and `found` some of them; while the base is loaded, there is nothing to count yet."""

    worker: int
    done: int = 0
    found: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Said:
    """How it goes, as the driver hears of it. `sheet` is a PNG of the judged pairs."""

    step: int
    loss: float
    samples_per_second: float
    score: dict[str, float] | None = None
    sheet: bytes | None = None


def work(config: dict[str, Any]) -> None:
    """The loop of one worker. `config` has a reference to the `order`, and a Ray queue, `said`.

    A refusal is told and raised: told, for Ray hands on only its text; raised, for the other workers wait for this one.
    """
    import ray

    said = config["said"]
    try:
        _work(ray.get(config["order"]), said)
    except ImageError as error:
        said.put(PairError(f"A pair cannot be used: {error}"))
        raise
    except EditTransferError as error:
        said.put(error)
        raise


def _work(order: Order, said: Any) -> None:
    import ray.train
    import torch

    from training.fit.encodings import Encodings
    from training.fit.fitting import Fit

    rank = ray.train.get_context().get_world_rank()
    first = rank == 0

    def tell(done: int, found: int, total: int) -> None:
        said.put(Preparing(worker=rank, done=done, found=found, total=total))

    torch.set_num_threads(order.threads)
    said.put(Preparing(worker=rank))
    with tempfile.TemporaryDirectory() as folder:
        encodings = Encodings(order.encodings, tell)
        fit = Fit(_editor(order), order.pairs, order.kept, order.settings, Path(folder), encodings)
        _restore(fit, ray.train.get_checkpoint())
        for moment in fit.run():
            if first:
                said.put(_told(moment))
            if moment.judged:
                _report(fit, moment, Path(folder), first)


def _editor(order: Order) -> Any:
    from pipelines.transfer import Editor

    settings = order.settings
    return Editor.load(
        order.base,
        device=order.device,
        attention=settings.attention,
        quantised=settings.quantised,
        compact=settings.compact,
    )


def _restore(fit: Any, checkpoint: Any) -> None:
    import torch

    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        fit.restore(torch.load(Path(folder, STATE), weights_only=True, map_location="cpu"))


def _told(moment: Any) -> Said:
    from training.sheet import png

    progress = moment.progress
    return Said(
        step=progress.step,
        loss=progress.loss,
        samples_per_second=progress.samples_per_second,
        score=asdict(moment.score) if moment.score else None,
        sheet=png(_sheet(moment)) if moment.pictures else None,
    )


def _sheet(moment: Any) -> Any:
    from training.sheet import SheetRow, contact_sheet

    return contact_sheet(COLUMNS, [SheetRow("", pictures) for pictures in moment.pictures])


def _report(fit: Any, moment: Any, folder: Path, first: bool) -> None:
    """All workers meet here; the first one brings the checkpoint, at the end with the adapter in it."""
    import ray.train
    import torch

    metrics = {"step": moment.progress.step, "loss": moment.progress.loss}
    if not first:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        torch.save(fit.state(), Path(kept, STATE))
        if moment.over:
            _write_outcome(fit, moment, Path(kept))
        ray.train.report(metrics, ray.train.Checkpoint.from_directory(kept))


def _write_outcome(fit: Any, moment: Any, folder: Path) -> None:
    from training.fit import lora
    from training.sheet import png

    lora.save(fit.editor.family.transformer, folder, WEIGHTS)
    (folder / SAMPLES).write_bytes(png(_sheet(moment)))
    outcome = {
        "score": asdict(moment.score),
        "curve": fit.curve,
        "held_out": [pair.digest for pair in fit.held_out],
        "scored": [trial.asked.digest for trial in fit.trials],
        "shown": list(dict.fromkeys(pair.digest for trial in fit.trials for pair in trial.shown)),
        "samples": moment.progress.samples,
    }
    (folder / OUTCOME).write_text(json.dumps(outcome))
