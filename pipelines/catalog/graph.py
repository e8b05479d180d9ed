"""The job as a Ray Data graph: read and decode -> edit (a pool of actors) -> encode, write, record.

Between the stages an image travels as one binary value of raw pixels. The last stage writes its manifest rows
itself and passes on nothing but counts, so rows are durable at once and the driver stays small.
"""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from PIL import Image
from ray.data import ActorPoolStrategy, Dataset, ExecutionResources

from infra import store
from infra.errors import EditTransferError, ImageError
from pipelines.adapters import Worn
from pipelines.catalog import manifest, stages
from pipelines.catalog.plan import Task
from pipelines.catalog.work import Recipe

if TYPE_CHECKING:
    from pipelines.transfer import Editor, Prefix

# Reading and writing take a core now and then, but must never wait for one that an edit actor holds for good.
CPUS_BESIDE_EDITS = 0.25
# Decoded images wait for the edit in Ray's object store: so many batches a worker, not as many as there is room for.
BATCHES_AHEAD = 16
LEAST_AHEAD = 64 * 2**20  # bytes
SIZES_LOOKED_AT = 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a recipe over a catalog. `base` is as Editor.load takes it, `gpus` is for each actor.

    `worn` are the adapters, `cache` the folder on every machine that keeps their weights.
    """

    job_id: str
    recipe: Recipe
    base: str | None
    pairs: Sequence[tuple[Image.Image, Image.Image]]
    worn: Sequence[Worn]
    cache: str
    output: str
    max_pixels: int
    workers: int
    batch_size: int
    gpus: float = 0

    def ready_editor(self) -> tuple["Editor", "Prefix"]:
        """What every edit actor starts with; see `stages.ready_editor`."""
        return stages.ready_editor(self.base, self.pairs, self.recipe.attention, self.batch_size, self.worn, self.cache)


@dataclass(frozen=True)
class Counts:
    """What became of some images: edited, found unchanged after all, failed."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.done + other.done, self.skipped + other.skipped, self.failed + other.failed)


def run(job: Job, tasks: Sequence[Task]) -> Iterator[Counts]:
    """Do the tasks on the connected Ray, yielding the counts of every finished batch.

    Raises what stops an Editor from being made (BaseNotFound, PairError), before anything is written, and
    EditTransferError if the job breaks.
    """
    _quiet()
    _bound_queues(job, tasks)
    try:
        blocks = graph(job, tasks).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for block in blocks:
            assert isinstance(block, pa.Table)
            yield from _counts(block)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise EditTransferError(f"The job broke: {reason} Run it again to go on.") from error


def _counts(block: pa.Table) -> Iterator[Counts]:
    if "refusal" in block.column_names:
        raise next(_unpack(block, "refusal"))
    for row in block.to_pylist():
        yield Counts(**row)


def _quiet() -> None:
    """Ray Data's own bars and log lines give way to ours; its log files stay."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)


def _bound_queues(job: Job, tasks: Sequence[Task]) -> None:
    """Keep memory flat, whatever the number of images. Less than a few batches would make the stages take turns."""
    sizes = []
    for task in tasks[:: max(1, len(tasks) // SIZES_LOOKED_AT)]:
        with suppress(ImageError):
            header = stages.header(task.input, job.max_pixels)
            sizes.append(header.width * header.height * 3)
    ahead = max(sizes, default=0) * job.batch_size * job.workers * BATCHES_AHEAD
    options = ray.data.DataContext.get_current().execution_options
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=max(ahead, LEAST_AHEAD))


def graph(job: Job, tasks: Sequence[Task]) -> Dataset:
    """The lazy graph; its rows are Counts. Blocks hold one batch each: short tails, and memory stays flat."""
    batch = max(1, min(job.batch_size, -(-len(tasks) // job.workers)))
    tables: dict[str, Any] = {"batch_format": "pyarrow", "zero_copy_batch": True}
    return (
        ray.data.from_arrow([_pack(tasks[at : at + batch]) for at in range(0, len(tasks), batch)])
        .map_batches(**_beside_edits(_read, job), batch_size=1, **tables)
        .map_batches(
            _Edit,
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=job.workers),
            batch_size=batch,
            num_cpus=1,
            num_gpus=job.gpus,
            **tables,
        )
        .map_batches(**_beside_edits(_write, job), batch_size=batch, **tables)
    )


def _beside_edits(stage: Callable[[pa.Table, Job], pa.Table], job: Job) -> dict[str, Any]:
    return {"fn": stage, "fn_kwargs": {"job": job}, "num_cpus": CPUS_BESIDE_EDITS}


def _read(table: pa.Table, job: Job) -> pa.Table:
    return _pack(stages.read(task, job.recipe, job.max_pixels) for task in _unpack(table))


class _Edit:
    def __init__(self, job: Job) -> None:
        self.recipe = job.recipe
        self.refusal: EditTransferError | None = None
        try:
            self.editor, self.prefix = job.ready_editor()
        except EditTransferError as error:
            self.refusal = error

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.refusal:  # goes to the driver as a value: what an actor raises arrives there as text
            return _pack([self.refusal], "refusal")
        return _pack(stages.edit(list(_unpack(table)), self.editor, self.prefix, self.recipe))


def _write(table: pa.Table, job: Job) -> pa.Table:
    if "refusal" in table.column_names:
        return table
    items = list(_unpack(table))
    rows = [stages.write(item, job.recipe, job.output, job.job_id) for item in items]
    manifest.append(store.join(job.output, "manifest"), rows)
    failed = sum(row["status"] == manifest.FAILED for row in rows)
    skipped = sum(item.recorded is not None for item in items)
    return pa.table({"done": [len(rows) - failed - skipped], "skipped": [skipped], "failed": [failed]})


def _pack(values: Iterable[Any], column: str = "item") -> pa.Table:
    pickled = [pickle.dumps(value, protocol=5) for value in values]
    return pa.table({column: pa.array(pickled, pa.large_binary())})


def _unpack(table: pa.Table, column: str = "item") -> Iterator[Any]:
    return (pickle.loads(value.as_buffer()) for value in table[column])
