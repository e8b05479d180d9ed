"""The job as a Ray Data graph: list -> read and decode -> edit (a pool of actors) -> encode, write, record.

A row is a batch: one binary value, a block of its own, that holds a list of tasks or items, or what has to be told
to the driver on the way past the other stages: counts, or an error that stops the job. The last stage writes its
manifest rows itself and passes on nothing but counts, so rows are durable at once and the driver stays small.
"""

import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, Datasource, ExecutionResources
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from infra import store
from infra.errors import EditTransferError, ImageError
from pipelines.catalog import attempts, feed, metrics, stages
from pipelines.catalog.attempts import EDIT, READ, WRITE, Guard
from pipelines.catalog.bench import Bench
from pipelines.catalog.counts import Counts
from pipelines.catalog.feed import Feed
from pipelines.catalog.listing import Input
from pipelines.catalog.manifest import DONE, FAILED
from pipelines.catalog.plan import Task
from pipelines.catalog.stages import Item
from pipelines.tuning import PLAIN, Tuning

# Listing, reading and writing take a core now and then, but must never wait for one that an edit actor holds for good.
CPUS_TO_LIST = 0.125
CPUS_BESIDE_EDITS = 0.25
CPUS_BESIDE = CPUS_TO_LIST + 2 * CPUS_BESIDE_EDITS
# Decoded images wait for the edit in Ray's object store: so many batches a worker, not as many as there is room for.
BATCHES_AHEAD = 16
LEAST_AHEAD = 64 * 2**20  # bytes
SIZES_LOOKED_AT = 16
AGAIN = "Run the same command again to go on."


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of an edit over a catalog.

    base         as Editor.load takes it
    cache        the folder on every machine that keeps the weights of adapters
    batch        images that travel together
    batch_size   images that go through the model together at most, None for as many as fit
    gpus         for each edit actor
    tuned        how they run the base
    after        when the latest row was finished that was there before
    """

    job_id: str
    feed: Feed
    base: str | None
    cache: str
    output: str
    max_pixels: int
    workers: int
    batch: int
    batch_size: int | None = None
    gpus: float = 0
    tuned: Tuning = PLAIN
    after: datetime | None = None

    def bench(self) -> Bench:
        """What every edit actor starts with."""
        return Bench(self.base, self.feed.edits, self.cache, self.batch_size, self.tuned)


@dataclass(frozen=True)
class Edited:
    """A batch between edit and write, and the time that its actor took for it and had waited for it."""

    items: list[Item]
    seconds: float
    waited: float


Passing = Counts | EditTransferError


@dataclass(frozen=True)
class Steps:
    """What is done at each stage. Benchmarks put others in their place to measure the graph alone."""

    read: Callable[[Sequence[Task], int], list[Item]] = stages.read
    bench: Callable[[Job], Any] = Job.bench
    edit: Callable[[Sequence[Item], Any], list[Item]] = stages.edit
    write: Callable[[Sequence[Item], str, str, datetime | None], list[dict[str, Any]]] = stages.write


def run(job: Job, sample: Sequence[Input] = (), steps: Steps | None = None) -> Iterator[Counts]:
    """Do the job on the connected Ray, yielding counts as batches are finished.

    sample: some of the images, to tell how much memory they need.

    Raises a UsageError for what stops it before anything is edited (BaseNotFound, PairError, StoreUnavailable), and
    EditTransferError if the job breaks later.
    """
    _quiet()
    _bound_queues(job, sample)
    try:
        rows = graph(job, steps or Steps()).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        begun = False
        for block in rows:
            for told in _unpack(block):
                if isinstance(told, EditTransferError):
                    raise EditTransferError(f"The job stopped: {told} {AGAIN}") if begun else told
                begun = begun or told.done > 0
                yield told
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise EditTransferError(f"The job broke: {reason} {AGAIN}") from error


def _quiet() -> None:
    """Ray Data's own bars and log lines give way to ours; its log files stay."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # every row, which is a batch, is a block
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)


def _bound_queues(job: Job, sample: Sequence[Input]) -> None:
    """Keep memory flat, whatever the number of images. Less than a few batches would make the stages take turns."""
    sizes = []
    for found in sample[:: max(1, len(sample) // SIZES_LOOKED_AT)]:
        with suppress(ImageError):
            header = stages.header(found, job.max_pixels)
            sizes.append(header.width * header.height * 3)
    ahead = max(sizes, default=0) * job.batch * job.workers * BATCHES_AHEAD
    options = ray.data.DataContext.get_current().execution_options
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=max(ahead, LEAST_AHEAD))


def graph(job: Job, steps: Steps) -> Dataset:
    """The lazy graph; its rows are Counts, or the error that stops the job."""
    memory = attempts.remembered()
    tables: dict[str, Any] = {"batch_format": "pyarrow", "zero_copy_batch": True, "batch_size": 1}
    beside: dict[str, Any] = {"num_cpus": CPUS_BESIDE_EDITS, **tables}
    return (
        ray.data.read_datasource(_Listed(job), override_num_blocks=1, concurrency=1, num_cpus=CPUS_TO_LIST)
        .map_batches(_read, fn_args=(job, Guard(memory, READ), steps), **beside)
        .map_batches(
            _Edit,
            fn_constructor_args=(job, Guard(memory, EDIT), steps),
            compute=ActorPoolStrategy(size=job.workers),
            num_cpus=1,
            num_gpus=job.gpus,
            **tables,
        )
        .map_batches(_write, fn_args=(job, Guard(memory, WRITE), steps), **beside)
    )


class _Listed(Datasource):
    """The feed as one read task, which goes on while what it has listed is being edited."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        job = self.job
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(lambda: _fed(job), unknown)]


def _fed(job: Job) -> Iterator[pa.Table]:
    store.be_patient()
    try:
        for batch in feed.batches(job.feed, job.batch):
            yield _pack(batch)
    except EditTransferError as error:
        yield _pack(error)


def _read(table: pa.Table, job: Job, guard: Guard, steps: Steps) -> pa.Table:
    def read(tasks: list[Task]) -> list[Item]:
        began = time.perf_counter()
        items = guard.done(
            [task.input.uri for task in tasks],
            together=lambda: steps.read(tasks, job.max_pixels),
            alone=lambda index: steps.read([tasks[index]], job.max_pixels),
            deadly=lambda index: Item(tasks[index].input, tasks[index].variant).crashed("decode"),
        )
        metrics.count_seconds(READ, time.perf_counter() - began)
        return items

    return _staged(table, read)


class _Edit:
    """One edit actor. What stops it from starting goes to the driver as a value: raised, it would arrive as text."""

    def __init__(self, job: Job, guard: Guard, steps: Steps) -> None:
        self.guard, self.steps = guard, steps
        self.refusal: EditTransferError | None = None
        self.idle_since: float | None = None
        store.be_patient()
        try:
            self.bench = steps.bench(job)
        except EditTransferError as error:
            self.refusal = error

    def __call__(self, table: pa.Table) -> pa.Table:
        return _staged(table, self._edited)

    def _edited(self, items: list[Item]) -> Edited | EditTransferError:
        if self.refusal:
            return self.refusal
        began = time.perf_counter()
        edited = self.guard.done(
            [item.input.uri for item in items],
            together=lambda: self.steps.edit(items, self.bench),
            alone=lambda index: self.steps.edit([items[index]], self.bench),
            deadly=lambda index: items[index].crashed("edit"),
        )
        ended = time.perf_counter()
        waited = began - self.idle_since if self.idle_since else 0.0
        self.idle_since = ended
        metrics.count_seconds(EDIT, ended - began)
        metrics.count_seconds("wait", waited)
        return Edited(edited, ended - began, waited)


def _write(table: pa.Table, job: Job, guard: Guard, steps: Steps) -> pa.Table:
    def stored(items: Sequence[Item]) -> list[dict[str, Any]]:
        return steps.write(items, job.output, job.job_id, job.after)

    def write(batch: Edited) -> Counts:
        items = batch.items
        began = time.perf_counter()
        rows = guard.done(
            [item.input.uri for item in items],
            together=lambda: stored(items),
            alone=lambda index: stored([items[index]]),
            deadly=lambda index: stored([items[index].crashed("encode")])[0],
        )
        metrics.count_seconds(WRITE, time.perf_counter() - began)
        return _counted(items, rows, batch)

    return _staged(table, write)


def _counted(items: Sequence[Item], rows: Sequence[dict[str, Any]], batch: Edited) -> Counts:
    kept = [row["status"] for row, item in zip(rows, items, strict=True) if item.recorded]
    failed = sum(row["status"] == FAILED for row in rows) - kept.count(FAILED)
    done, skipped = len(rows) - len(kept) - failed, kept.count(DONE)
    for status, number in (("done", done), ("skipped", skipped), ("failed", failed)):
        metrics.count_images(status, number)
    # an actor's first batch is not counted: before it there is nothing to wait for, and much that is done only once
    editing = batch.seconds if batch.waited else 0.0
    return Counts(done, skipped, failed, kept_failed=kept.count(FAILED), editing=editing, waiting=batch.waited)


def _staged(table: pa.Table, work: Callable[[Any], Any]) -> pa.Table:
    """The batches of a table after some work; what is only passing, passes."""
    store.be_patient()
    return _packed([each if isinstance(each, Passing) else _kept(work, each) for each in _unpack(table)])


def _kept(work: Callable[[Any], Any], batch: Any) -> Any:
    try:
        return work(batch)
    except EditTransferError as error:
        return error


def _pack(value: Any) -> pa.Table:
    return _packed([value])


def _packed(values: Iterable[Any]) -> pa.Table:
    pickled = [pickle.dumps(value, protocol=5) for value in values]
    return pa.table({"batch": pa.array(pickled, pa.large_binary())})


def _unpack(table: pa.Table) -> Iterator[Any]:
    return (pickle.loads(value.as_buffer()) for value in table["batch"])
