"""The job from its options to its summary: check everything, do what is left, write the report."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil

from rich.console import Console

from infra import cluster, store
from infra.deploy.environment import base_place
from infra.errors import OutputError, StoreError, UsageError
from infra.jobs import new_job_id
from infra.registry import Lease
from infra.settings import Settings, expanded
from pipelines import adapters
from pipelines.adapters import Worn
from pipelines.catalog import graph, manifest, parts, report, turns, variants
from pipelines.catalog.bench import USUAL_BATCH
from pipelines.catalog.counts import Counts
from pipelines.catalog.feed import Feed, planned
from pipelines.catalog.listing import Catalog, Input, Passed, canonical, list_catalog
from pipelines.catalog.options import Options
from pipelines.catalog.plan import Settled, Task
from pipelines.catalog.progress import Meter
from pipelines.catalog.summary import REPORT, Summary
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant, recipe_of, sha256
from pipelines.texts import Text, texts_for
from pipelines.transfer import bases, check_framing

GLANCE = 1000  # images that are looked at before a job starts; fewer are known by then
ROOM_TO_GROUP = 4  # batches that travel together where sizes differ, so that batches of one size fill


@dataclass(frozen=True)
class Glance:
    """What is known of a catalog before the job starts: its first inputs, or all of it if it is small.

    planned  what is to be done with each input, in order; None where the catalog is not small
    passed   what the listing passed over; complete if `planned` is there
    """

    inputs: Sequence[Input]
    planned: Sequence[Task | Settled] | None
    passed: Passed

    def catalog(self) -> Catalog:
        """What was listed, as a catalog."""
        return Catalog("", iter(self.inputs), self.passed)

    @property
    def settled(self) -> list[Settled]:
        """What stays as an earlier run left it."""
        return [each for each in self.planned or () if isinstance(each, Settled)]

    @property
    def tasks(self) -> list[Task] | None:
        """What is left to do, None where the catalog is not small."""
        return None if self.planned is None else [each for each in self.planned if isinstance(each, Task)]


@dataclass(frozen=True)
class Prepared:
    """A job that may start: nothing about it is known to be wrong, and nothing has been written.

    `place` is the output folder as asked for, `output` where this job's images, manifest and report go: the same,
    unless the results are staged.
    """

    place: str
    output: str
    base: str | None
    worn: Sequence[Worn]
    feed: Feed
    glance: Glance

    @property
    def recipe(self) -> Recipe:
        return self.feed.edits.usual.recipe

    @property
    def manifest(self) -> str:
        return self.feed.manifest


def prepare(options: Options, settings: Settings) -> Prepared:
    """Check pairs, adapters, base, input and output, and take a first look. Raises a UsageError of some kind."""
    place, base = canonical(options.output), options.base or settings.base
    bases.check_tuning(bases.find_base(base), options.tuned)
    revision = bases.revision_of(base)
    registry = options.registry or settings.registry
    worn = adapters.find(registry, options.adapters, options.scale, revision)
    files = [*adapters.exemplars(worn), *variants.read_pairs(options.pairs)]
    if not files:
        raise UsageError(_no_pairs(worn))
    pairs = [variants.decoded_pair(file, settings.max_pixels) for file in files]
    for before, after in pairs:
        check_framing(before, after)
    texts = texts_for(options.prompt and expanded(options.prompt), bases.find_base(base))
    text = texts.of(worn)
    recipe = _recipe(options, base, worn, [(sha256(before), sha256(after)) for _, before, after in files], text)
    usual = Variant(recipe, tuple(worn), text=text)
    edits = Edits(usual, pairs, registry, options.scale, settings.max_pixels, texts, base and base_place(base))
    output = store.join(place, "jobs", staged_id(options.input, recipe)) if options.stage else place
    feed = Feed(
        source=expanded(options.input),
        output=place,
        format=options.format,
        edits=edits,
        manifest=store.join(output, "manifest"),
        retry_failed=options.retry_failed,
        limit=options.limit,
    )
    feed = _recorded(feed, options.fresh)
    return Prepared(place, output, base and base_place(base), worn, feed, _glance(feed))


def staged_id(source: str, recipe: Recipe) -> str:
    """The job of one recipe over one input, where results are staged: the same command goes on in the same place."""
    return f"staged-{sha256(f'{canonical(source)} {recipe.digest()}'.encode())[:12]}"


def _recorded(feed: Feed, fresh: bool) -> Feed:
    return replace(feed, recorded=() if fresh else manifest.parts(feed.manifest))


def _glance(feed: Feed) -> Glance:
    catalog = list_catalog(feed.source, feed.output, feed.format)
    first = list(islice(catalog, min(GLANCE + 1, feed.limit or GLANCE + 1)))
    whole = len(first) <= GLANCE
    if not whole or len(manifest.loose(feed.recorded)) > manifest.MANY_LOOSE:
        return Glance(first, None, catalog.passed)
    return Glance(first, list(planned(feed, Catalog(feed.source, iter(first)))), catalog.passed)


def _no_pairs(worn: Sequence[Worn]) -> str:
    if not worn:
        return "Show the edit with --pair BEFORE AFTER: two images of one thing, before and after it."
    return f"{worn[0].version.ref} has no pair of its own to show its edit: show which with --pair BEFORE AFTER."


def _recipe(
    options: Options, base: str | None, worn: Sequence[Worn], pairs: Sequence[tuple[str, str]], text: Text | None = None
) -> Recipe:
    folder = bases.find_base(base)
    usual = bases.settings_of(folder)
    return recipe_of(
        worn,
        pairs,
        base=base or folder.name,
        revision=bases.revision_of(folder),
        attention=usual.attention,
        max_area=usual.max_area,
        steps=options.steps or usual.steps,
        seed=options.seed,
        format=options.format,
        restore=options.restore,
        prompt=text.sha256 if text else None,
        tuning=options.tuned.mark,
    )


def run(prepared: Prepared, options: Options, settings: Settings, console: Console) -> Summary:
    """Do what is left, compact the manifest and write the report.

    Raises OutputError if nothing can be written, LeaseHeld if another job works at the output and this one is not to
    wait, EditTransferError if it breaks; each time the same job can be run again and goes on where this one stopped.
    """
    _claim(prepared.output)
    with turns.turn(prepared.output, turns.Waiting(console) if options.wait else None) as held:
        return _alone(_up_to_date(prepared, options.fresh), options, settings, held, console)


def _up_to_date(prepared: Prepared, fresh: bool) -> Prepared:
    """The same job with what others have finished there since it was prepared."""
    feed = _recorded(prepared.feed, fresh)
    return prepared if feed.recorded == prepared.feed.recorded else replace(prepared, feed=feed, glance=_glance(feed))


def _alone(prepared: Prepared, options: Options, settings: Settings, held: Lease, console: Console) -> Summary:
    if options.fresh:
        manifest.drop_damaged(prepared.manifest)
    job_id = cluster.submission_id() or new_job_id()
    folder = store.join(prepared.output, "jobs", re.sub(r"[^\w.-]", "_", job_id), "catalog")
    parts.clear(folder)  # ids may be chosen by hand, and again
    prepared = replace(prepared, feed=replace(prepared.feed, folder=folder))
    if prepared.glance.planned is not None:
        for _ in parts.written(folder, prepared.glance.catalog()):
            pass
    if prepared.glance.tasks == []:
        with Meter(0, console) as meter:
            meter.add(Counts.of_settled(prepared.glance.settled) + Counts(passed=prepared.glance.passed))
        return finish(prepared, options, job_id, 0, meter.counts, meter.seconds)
    return _worked(prepared, options, settings, job_id, held, console)


def _worked(
    prepared: Prepared, options: Options, settings: Settings, job_id: str, held: Lease, console: Console
) -> Summary:
    tasks = prepared.glance.tasks
    with cluster.speaking_aside(), connected(options, settings, tasks) as resources:
        if len(manifest.loose(prepared.feed.recorded)) > manifest.MANY_LOOSE:
            cluster.elsewhere(manifest.compact, prepared.manifest)
            prepared = replace(prepared, feed=_recorded(prepared.feed, options.fresh))
        job = job_of(prepared, options, settings, workers_for(options, tasks, resources), job_id, resources.gpus)
        job = replace(job, after=manifest.latest(prepared.manifest))
        with Meter(None if tasks is None else len(tasks), console) as meter:
            for counts in graph.run(job, prepared.glance.inputs):
                turns.check(held, prepared.output)
                meter.add(counts)
        held.renew()
        turns.check(held, prepared.output)
        return cluster.elsewhere(finish, prepared, options, job_id, job.workers, meter.counts, meter.seconds)


def _claim(output: str) -> None:
    probe = store.join(output, ".probe")
    try:
        store.write(probe, b"")
        store.delete(probe)
    except StoreError as error:
        raise OutputError(f"Results cannot be written to {output}: {error}") from None


def connected(
    options: Options, settings: Settings, tasks: Sequence[Task] | None
) -> AbstractContextManager[cluster.Resources]:
    """Ray, with room for the edit actors that were asked for; an embedded one with as many as there are cores."""
    here = workers_here(options)
    embedded = here if tasks is None else min(here, len(tasks))
    return cluster.connected(graph.CPUS_BESIDE + (options.workers or 1), settings.ray, graph.CPUS_BESIDE + embedded)


def workers_here(options: Options) -> int:
    """Edit actors, as asked for, or as many as this machine can keep busy: one for every GPU, else for every core."""
    import torch

    return options.workers or torch.cuda.device_count() or cluster.cores()


def workers_for(options: Options, tasks: Sequence[Task] | None, resources: cluster.Resources) -> int:
    """Edit actors: as asked for, else one for every GPU of the cluster, else for every CPU not needed beside."""
    workers = options.workers or int(resources.gpus) or max(1, int(resources.cpus - graph.CPUS_BESIDE))
    return workers if tasks is None else max(1, min(workers, len(tasks)))


def job_of(
    prepared: Prepared, options: Options, settings: Settings, workers: int, job_id: str = "", gpus: float = 0
) -> graph.Job:
    """The job as its workers get it; `gpus` are those of the whole cluster."""
    return graph.Job(
        job_id=job_id,
        feed=prepared.feed,
        base=prepared.base,
        cache=settings.cache,
        output=prepared.output,
        max_pixels=settings.max_pixels,
        workers=workers,
        batch=_batch(prepared, options, workers),
        batch_size=options.batch_size,
        gpus=1 / ceil(workers / gpus) if gpus else 0,
        tuned=options.tuned,
    )


def _batch(prepared: Prepared, options: Options, workers: int) -> int:
    """Images that travel together: more than one batch where there are many, so that batches of one size fill."""
    size = options.batch_size or USUAL_BATCH
    tasks = prepared.glance.tasks
    if tasks is None:
        return size * ROOM_TO_GROUP
    each = -(-len(tasks) // workers)  # nobody should be left without work while another has several batches of it
    return max(1, min(each, max(size, each // ROOM_TO_GROUP), size * ROOM_TO_GROUP))


def finish(prepared: Prepared, options: Options, job_id: str, workers: int, counts: Counts, seconds: float) -> Summary:
    """Compact the manifest, and write the report."""
    manifest.compact(prepared.manifest)
    price = options.price_per_hour
    summary = Summary(
        total=counts.total,
        done=counts.done,
        skipped=counts.skipped + counts.kept,
        failed=counts.failed + counts.kept_failed,
        seconds=round(seconds, 3),
        images_per_second=round(counts.done / seconds, 3) if counts.done else 0.0,
        manifest=prepared.manifest,
        report=store.join(prepared.output, REPORT),
        job_id=job_id,
        workers=workers,
        busy=counts.busy,
        cost=None if price is None else round(price * workers * seconds / 3600, 4),
        passed=counts.passed or Passed(),
    )
    report.write(prepared, options, summary)
    return summary
