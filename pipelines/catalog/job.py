"""The job from its options to its summary: check everything, do what is left, write the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from rich.console import Console

from infra import cluster, store
from infra.errors import ImageError, OutputError, PairError, StoreError, UsageError
from infra.jobs import new_job_id
from infra.settings import Settings
from pipelines import adapters, codec
from pipelines.adapters import Worn
from pipelines.catalog import graph, manifest, report
from pipelines.catalog.listing import Catalog, Input, canonical, list_catalog, mark_duplicates
from pipelines.catalog.plan import Plan, plan
from pipelines.catalog.progress import Meter
from pipelines.catalog.work import Recipe, sha256
from pipelines.transfer import bases, check_framing

Pair = tuple[Image.Image, Image.Image]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `edit-transfer apply` was asked for. Paths and URIs as given; None means the default."""

    pairs: Sequence[tuple[str, str]]
    input: str
    output: str
    adapters: Sequence[str] = ()
    scale: float = 1.0
    registry: str | None = None
    base: str | None = None
    workers: int | None = None
    batch_size: int = 8
    steps: int | None = None
    seed: int = 0
    format: str | None = None
    limit: int | None = None
    fresh: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class Prepared:
    """A job that may start: nothing about it is known to be wrong, and nothing has been written.

    `catalog` is everything there is, `inputs` what the job was limited to, `plan` what is left to do of it.
    """

    output: str
    base: str | None
    pairs: Sequence[Pair]
    worn: Sequence[Worn]
    recipe: Recipe
    catalog: Catalog
    inputs: Sequence[Input]
    plan: Plan

    @property
    def manifest(self) -> str:
        return store.join(self.output, "manifest")


@dataclass(frozen=True)
class Summary:
    """The outcome of a job, over the images it was asked for: total = done + skipped + failed.

    done counts the images edited now, skipped those that an earlier run had finished, failed those that have
    no result.
    """

    total: int
    done: int
    skipped: int
    failed: int
    seconds: float
    images_per_second: float
    manifest: str
    report: str


def prepare(options: Options, settings: Settings) -> Prepared:
    """Check pairs, adapters, base, input and output, and find what is left to do. Raises a UsageError of some kind."""
    output, base = canonical(options.output), options.base or settings.base
    revision = bases.revision_of(base)
    worn = adapters.find(options.registry or settings.registry, options.adapters, options.scale, revision)
    files = [*adapters.exemplars(worn), *_given_pairs(options)]
    if not files:
        raise UsageError(_no_pairs(worn))
    pairs = [
        (_decode_pair(name, before, settings), _decode_pair(name, after, settings)) for name, before, after in files
    ]
    for before, after in pairs:
        check_framing(before, after)
    catalog = list_catalog(options.input, output)
    inputs = mark_duplicates(catalog.inputs, options.format)[: options.limit]
    recipe = _recipe(options, base, worn, [(sha256(before), sha256(after)) for _, before, after in files])
    recorded = manifest.SCHEMA.empty_table()
    if not options.fresh:
        recorded = manifest.read(store.join(output, "manifest"))
    left = plan(inputs, recorded, recipe, options.retry_failed)
    return Prepared(output, base, pairs, worn, recipe, catalog, inputs, left)


def _no_pairs(worn: Sequence[Worn]) -> str:
    if not worn:
        return "Show the edit with --pair BEFORE AFTER: two images of one thing, before and after it."
    return f"{worn[0].version.ref} has no pair of its own to show its edit: show which with --pair BEFORE AFTER."


def _given_pairs(options: Options) -> list[tuple[str, bytes, bytes]]:
    return [(f"{before}, {after}", _read_pair(before), _read_pair(after)) for before, after in options.pairs]


def _read_pair(uri: str) -> bytes:
    try:
        return store.read(uri)
    except StoreError as error:
        raise PairError(f"This image of the pair cannot be read: {error}") from None


def _decode_pair(name: str, data: bytes, settings: Settings) -> Image.Image:
    try:
        return codec.decode(data, settings.max_pixels).image
    except ImageError as error:
        raise PairError(f"{name}: an image of this pair cannot be used: {error}") from None


def _recipe(options: Options, base: str | None, worn: Sequence[Worn], pairs: Sequence[tuple[str, str]]) -> Recipe:
    folder = bases.find_base(base)
    usual = bases.settings_of(folder)
    return Recipe(
        base=base or folder.name,
        revision=bases.revision_of(folder),
        pairs=tuple(pairs),
        attention=next((each.attention for each in worn if each.attention), usual.attention),
        max_area=usual.max_area,
        steps=options.steps or usual.steps,
        seed=options.seed,
        format=options.format,
        adapter="+".join(each.digest for each in worn) or None,
        adapter_name=worn[0].version.name if len(worn) == 1 else "+".join(each.told for each in worn) or None,
        adapter_version=worn[0].version.number if len(worn) == 1 else None,
    )


def run(prepared: Prepared, options: Options, settings: Settings, console: Console) -> Summary:
    """Do what is left, compact the manifest and write the report.

    Raises OutputError if nothing can be written, EditTransferError if the job breaks; either way the same job
    can be run again and goes on where this one stopped.
    """
    _claim(prepared.output)
    if options.fresh:
        manifest.drop_damaged(prepared.manifest)
    job_id = cluster.submission_id() or new_job_id()
    with Meter(len(prepared.plan.tasks), console) as meter:
        if prepared.plan.tasks:
            work(prepared, options, settings, job_id, meter)
    rows = manifest.compact(prepared.manifest)
    summary = _summary(prepared, meter)
    report.write(prepared, options, summary, rows)
    return summary


def _claim(output: str) -> None:
    probe = store.join(output, ".probe")
    try:
        store.write(probe, b"")
        store.delete(probe)
    except StoreError as error:
        raise OutputError(f"Results cannot be written to {output}: {error}") from None


def workers_wanted(options: Options, images: int) -> int:
    """Edit actors for so many images: as asked for, else one for every GPU here, else for every core."""
    import torch

    return min(images, options.workers or torch.cuda.device_count() or cluster.cores())


def work(prepared: Prepared, options: Options, settings: Settings, job_id: str, meter: Meter) -> None:
    tasks = prepared.plan.tasks
    workers = workers_wanted(options, len(tasks))
    needed = workers + 2 * graph.CPUS_BESIDE_EDITS
    with cluster.speaking_aside(), cluster.connected(needed, settings.ray) as resources:
        job = job_of(prepared, options, settings, workers, job_id, min(1, resources.gpus / workers))
        for counts in graph.run(job, tasks):
            meter.add(counts)


def job_of(
    prepared: Prepared, options: Options, settings: Settings, workers: int, job_id: str = "", gpus: float = 0
) -> graph.Job:
    """The job as its actors get it."""
    return graph.Job(
        job_id=job_id,
        recipe=prepared.recipe,
        base=prepared.base,
        pairs=prepared.pairs,
        worn=prepared.worn,
        cache=settings.cache,
        output=prepared.output,
        max_pixels=settings.max_pixels,
        workers=workers,
        batch_size=options.batch_size,
        gpus=gpus,
    )


def _summary(prepared: Prepared, meter: Meter) -> Summary:
    counts, seconds = meter.counts, meter.seconds
    return Summary(
        total=len(prepared.inputs),
        done=counts.done,
        skipped=prepared.plan.skipped + counts.skipped,
        failed=prepared.plan.failed + counts.failed,
        seconds=round(seconds, 3),
        images_per_second=round(counts.done / seconds, 3) if counts.done else 0.0,
        manifest=prepared.manifest,
        report=store.join(prepared.output, "report.html"),
    )
