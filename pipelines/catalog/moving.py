"""The results of a staged job go into the output folder, and come out again: `publish` and `revert`.

Publishing: 1. the plan is written, whole, with the rows that counted before; 2. for every thousand results a. what lies
in their places is copied aside, b. what was found there is written down, c. the results are copied into their places,
d. their rows are appended to the manifest, as one part; 3. the publication is marked as complete, and the manifest
compacted. A place is written to (c) only after it is known for good what was there (b), and a row (d) says only what is
so. Killed anywhere and run again, it goes on with the plan: what the manifest tells to be in place is not looked at.

Reverting, the latest publication first: 1. the publication is marked, and never gone on with; 2. for every thousand
results a. what was there before is copied back, or the result deleted where there was nothing, b. the rows that
counted before are appended, and rows without a status for inputs that had none, as one part, c. that is marked;
3. what was kept is deleted, and the manifest compacted. What a later job has edited is left alone, until that
job is reverted: then this one can be.

Staged results are copied, not moved: so a result that was overwritten, or a copy that was cut short, can be had again
from where it was made, and a job can be published again after it was reverted. They take their room until the folder
of the job is deleted; without it there is no reverting.

One process at a time publishes to an output folder, reverts or edits there; a lease below `jobs/` sees to that. What is
told apart is what manifests say: a file that was put into the output folder by hand over a published result is taken
for that result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from rich.console import Console

from infra import store
from infra.errors import NotInStore, UsageError
from pipelines.catalog import manifest
from pipelines.catalog import publication as memory
from pipelines.catalog.crew import Bar, Crew, working
from pipelines.catalog.publication import Publication, Row, StagedJob, State


@dataclass
class Published:
    """What publishing did: of the finished results of the job, published + already + left + missing.

    published   put in place now; `replaced` of them where something lay
    already     were in place
    left        not put in place again: a later job has edited the same image, or has its result there
    missing     gone from the job's folder
    failed      have no result
    """

    job: str
    images: str
    published: int = 0
    replaced: int = 0
    already: int = 0
    left: int = 0
    missing: int = 0
    failed: int = 0


@dataclass
class Reverted:
    """What reverting did: `restored` got back what lay there before, `deleted` were new. reverted is their sum.

    left_alone  edited by a later job since
    missing     cannot be reverted: what was kept of them is gone
    """

    job: str
    images: str
    reverted: int = 0
    restored: int = 0
    deleted: int = 0
    left_alone: int = 0
    missing: int = 0


def publish(job: StagedJob, console: Console, partial: bool = False) -> Published:
    """Put the finished results of a staged job in place.

    Raises UsageError if nothing is done or, unless `partial`, not everything; LeaseHeld; EditTransferError if it
    breaks, and then can be called again.
    """
    _check_finished(job, partial)
    told = Published(job.folder, f"{job.place}/images")
    with working(job, console) as crew:
        for each in _remembered(crew):
            if memory.REVERTING in each.names:
                if not each.is_reverted:
                    _revert(crew, each, Reverted(job.folder, told.images))
            elif memory.PUBLISHED not in each.names:
                _publish(crew, each, told)
        known = memory.publications(job)
        standing = [each for each in known if memory.REVERTING not in each.names]
        plan = memory.plan(job, standing, known[-1].number + 1 if known else 1)
        told.already, told.left = plan.in_place - told.published, plan.left - told.missing
        told.failed = plan.failed
        if not (plan.publication or known or plan.in_place):
            raise UsageError(f"{job.folder}: nothing in this job is done; its report says why.")
        if plan.publication:
            _publish(crew, plan.publication, told)
        manifest.compact(job.manifest)
    return told


def revert(job: StagedJob, console: Console) -> Reverted:
    """Take away what this job has published, and put back what was there. Raises as `publish` does."""
    told = Reverted(job.folder, f"{job.place}/images")
    with working(job, console) as crew:
        for each in reversed(_remembered(crew)):
            _revert(crew, each, told)
            if told.missing:
                break
        manifest.compact(job.manifest)
    return told


def _check_finished(job: StagedJob, partial: bool) -> None:
    left = None if partial else memory.unfinished(job)
    if left is not None:
        raise UsageError(
            f"{job.folder}: this job has not finished ({left} of the images it has listed have no outcome yet)."
            " Run `apply --stage` again to go on with it, or publish what is done with --partial."
        )


def _remembered(crew: Crew) -> list[Publication]:
    """The publications of the job; what was left of unfinished plans and finished reverts is removed."""
    whole = []
    for each in memory.publications(crew.job):
        if memory.OVER in each.names or memory.PLANNED not in each.names:
            _forget(crew, each)
        else:
            whole.append(each)
    return whole


def _forget(crew: Crew, publication: Publication) -> None:
    """Delete all there is of a publication; the mark that it is over goes last."""
    kept = store.join(crew.job.folder, "replaced", f"{publication.number:06}")
    copies = (stored.uri for stored in store.list_objects(kept))
    while some := list(islice(copies, memory.CHUNK)):
        crew.each(store.delete, some)
    names = sorted(publication.names - {memory.OVER})
    crew.each(store.delete, [store.join(publication.folder, name) for name in names])
    store.delete(store.join(publication.folder, memory.OVER))


def _publish(crew: Crew, publication: Publication, told: Published) -> None:
    missing = told.missing
    with (
        memory.compared(publication) as compared,
        Bar("Publishing", compared.count(memory.BEFORE), crew.console) as bar,
    ):
        for chunk, states in compared.chunks():
            numbers = [each.number for each in states if each.state == memory.BEFORE]
            if numbers:
                crew.check()
                _publish_chunk(crew, publication, chunk, numbers, manifest.stamp(compared.latest), told)
                bar.add(len(numbers))
    if told.missing == missing:
        publication.mark(memory.PUBLISHED)


def _publish_chunk(
    crew: Crew, publication: Publication, chunk: int, numbers: Sequence[int], at: datetime, told: Published
) -> None:
    entries, kept = publication.entries(chunk), publication.kept(chunk)

    def keep(number: int) -> bool:
        target = entries[number]["ours"]["result_uri"]
        return _copied(target, publication.kept_copy(target))

    def place(number: int) -> bool:
        target = entries[number]["ours"]["result_uri"]
        return _copied(store.join(crew.job.folder, "images", crew.job.path_of(target)), target)

    unknown = [number for number in numbers if number not in kept]
    if unknown:
        kept |= dict(zip(unknown, crew.each(keep, unknown), strict=True))
        publication.mark(memory.kept_name(chunk), kept)
    placed = [number for number, done in zip(numbers, crew.each(place, numbers), strict=True) if done]
    if placed:
        manifest.append(crew.job.manifest, [entries[number]["ours"] | {"finished_at": at} for number in placed])
    told.published += len(placed)
    told.replaced += sum(kept[number] for number in placed)
    told.missing += len(numbers) - len(placed)


def _copied(source: str, target: str) -> bool:
    """Whether there was anything to copy."""
    try:
        store.copy(source, target)
    except NotInStore:
        return False
    return True


def _revert(crew: Crew, publication: Publication, told: Reverted) -> None:
    if memory.REVERTING not in publication.names:
        publication.mark(memory.REVERTING)
    missing = told.missing
    with memory.compared(publication) as compared:
        later = compared.count(memory.LATER)
        expected = compared.count(memory.OURS) + compared.count(memory.BEFORE)
        with Bar("Reverting", expected, crew.console) as bar:
            for chunk, states in compared.chunks():
                crew.check()
                _revert_chunk(crew, publication, chunk, states, manifest.stamp(compared.latest), told)
                bar.add(sum(each.state != memory.LATER for each in states))
    told.left_alone += later
    if not later and told.missing == missing:
        publication.mark(memory.OVER)
        _forget(crew, publication)


def _revert_chunk(
    crew: Crew,
    publication: Publication,
    chunk: int,
    states: Sequence[State],
    at: datetime,
    told: Reverted,
) -> None:
    """An object may be back without its row, so all of a chunk is done again that is not marked as reverted."""
    mark = memory.reverted_name(chunk)
    wanted = {memory.OURS} if mark in publication.names else {memory.OURS, memory.BEFORE}
    chosen = [each for each in states if each.state in wanted]
    kept = publication.kept(chunk) if chosen else {}
    chosen = [each for each in chosen if each.number in kept]
    if chosen:
        entries = publication.entries(chunk)
        back = crew.each(lambda each: _put_back(publication, entries[each.number], kept[each.number]), chosen)
        done = [each for each, is_back in zip(chosen, back, strict=True) if is_back]
        rows = [row for each in done for row in _former_rows(entries[each.number], each)]
        if rows:
            manifest.append(crew.job.manifest, [row | {"finished_at": at} for row in rows])
        told.reverted += len(done)
        told.restored += sum(kept[each.number] for each in done)
        told.deleted += sum(not kept[each.number] for each in done)
        told.missing += len(chosen) - len(done)
    if mark not in publication.names:
        publication.mark(mark)


def _put_back(publication: Publication, entry: Row, was_there: bool) -> bool:
    """Whether the place of a result is as it was before."""
    target = entry["ours"]["result_uri"]
    if was_there:
        return _copied(publication.kept_copy(target), target)
    store.delete(target)
    return True


def _former_rows(entry: Row, state: State) -> Iterator[Row]:
    """The rows that make the manifest say what it said; one without a status takes the input out."""
    uri, owner = entry["ours"]["uri"], entry["owner"]
    yield entry["former"] or {"uri": uri, "status": None}
    if owner and owner["uri"] != uri and state.widowed:
        yield owner
