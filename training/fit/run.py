"""One training on Ray: start the workers, listen to them, take home what they leave in the store."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import cluster, store
from infra.errors import EditTransferError, NotInStore
from training.fit.worker import OUTCOME, SAMPLES, WEIGHTS, Order, Preparing, Said, work

if TYPE_CHECKING:
    from ray.train import Checkpoint

SNAPSHOT = "checkpoint_manager_snapshot.json"
LOST_WORKERS = 3  # that a run survives
CHECKPOINTS = 2  # kept: the newest may be half written when a machine dies


@dataclass(frozen=True)
class Fitted:
    """What a training leaves: the files of the adapter, and how it came about (see worker.OUTCOME)."""

    weights: bytes
    samples: bytes
    outcome: dict[str, Any]


def fit(order: Order, place: str, run: str, listen: Callable[[Said | Preparing], None], address: str | None) -> Fitted:
    """Train on the cluster at `address`, or on an embedded one.

    Checkpoints go below `place` under the name `run`, and encoded views beside them: the same order under the same name
    goes on where it was killed.

    Raises:
        EditTransferError: what the workers refuse (BaseNotFound, PairError), or that the training broke.
    """
    workers = order.settings.workers
    with cluster.speaking_aside(), cluster.connected(workers, address) as resources:
        from ray.util.queue import Queue

        said = Queue(actor_options={"num_cpus": 0})
        refusals: list[EditTransferError] = []
        listener = threading.Thread(target=_listen, args=(said, listen, refusals), daemon=True)
        listener.start()
        try:
            device = "cuda" if resources.gpus >= workers else "cpu"
            order = replace(order, device=device, encodings=_encodings(store.join(place, run)))
            checkpoint = _train(order, place, run, said)
        except EditTransferError as error:
            raise (refusals or [error])[0] from error
        finally:
            with suppress(Exception):  # where the cluster is gone, there is nobody to say good-bye to
                said.put(None)
                listener.join()
                said.shutdown()
        if checkpoint is None:
            raise EditTransferError("The training left nothing behind. Run the same command again.")
        with checkpoint.as_directory() as folder:
            return _taken_home(Path(folder))


def _listen(said: Any, listen: Callable[[Said | Preparing], None], refusals: list[EditTransferError]) -> None:
    while (heard := said.get()) is not None:
        if isinstance(heard, EditTransferError):
            refusals.append(heard)
        else:
            with suppress(OSError):  # a full disk for the log must not end the training
                listen(heard)


def _train(order: Order, place: str, run: str, said: Any) -> Checkpoint | None:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    _quiet()
    _forget_if_torn(store.join(place, run))
    filesystem, path = store.arrow(place)
    gpus = order.device == "cuda"
    trainer = TorchTrainer(
        work,
        train_loop_config={"order": ray.put(order), "said": said},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=order.settings.workers, use_gpu=gpus),
        run_config=RunConfig(
            name=run,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=LOST_WORKERS),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS),
        ),
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        return trainer.fit().checkpoint
    except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise EditTransferError(f"The training broke: {reason} Run the same command again to go on.") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # Ray Train keeps it otherwise


def _forget_if_torn(run: str) -> None:
    """Ray Train's record of checkpoints is written in place: of a run killed in that moment nothing can be resumed."""
    try:
        json.loads(store.read(store.join(run, SNAPSHOT)))
    except NotInStore:
        return
    except ValueError:
        _remove(run)


def forget(run: str) -> None:
    """Remove the checkpoints of a run, and its encoded views: nothing will go on from there. Where that is not allowed
    they stay, and only cost space."""
    _remove(run)
    _remove(_encodings(run))


def _encodings(run: str) -> str:
    """Where the encoded views of a run lie: not among its checkpoints, which may be torn."""
    return f"{run}.encodings"


def _remove(folder: str) -> None:
    filesystem, path = store.arrow(folder)
    with suppress(OSError):
        filesystem.delete_dir(path)


def _quiet() -> None:
    """Ray Train's own lines give way to ours; its log files stay."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # which is how often it looks whether all is done
    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _taken_home(folder: Path) -> Fitted:
    weights, samples = ((folder / name).read_bytes() for name in (WEIGHTS, SAMPLES))
    return Fitted(weights, samples, json.loads((folder / OUTCOME).read_text()))
