"""The stages of the job, on some items at a time: read and decode, edit, encode and write. No Ray in here.

An item that cannot be dealt with carries its error on through the stages, and becomes a row that explains it. What
would befall every image (a store that does not answer, an edit that cannot be prepared) is raised.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from infra import store
from infra.errors import EditTransferError, ImageError, StoreError, StoreUnavailable
from pipelines import codec
from pipelines.catalog import manifest
from pipelines.catalog.listing import Input, result_format, result_name
from pipelines.catalog.plan import Task
from pipelines.catalog.work import Recipe, Variant, sha256
from pipelines.faults import out_of_memory
from pipelines.restore import Draft, finished

if TYPE_CHECKING:
    from pipelines.catalog.bench import Bench

HEADER_BYTES = 256 * 1024
REQUESTS = 8  # to the store at a time, of one batch: its answers are waited for, not computed
_FINISHING = Lock()  # what is computed takes memory: one image at a time


@dataclass(frozen=True)
class Item:
    """One image on its way through the job.

    result   of the photo's size, or a draft where it is to be restored to full resolution when it is written
    seconds  its share of the time that its batch took to edit
    numerics how the machine that edited it rounds
    """

    input: Input
    variant: Variant
    sha256: str | None = None
    photo: codec.Photo | None = None
    result: Image.Image | Draft | None = None
    error: ImageError | None = None
    recorded: dict[str, Any] | None = None
    seconds: float | None = None
    numerics: str | None = None

    def failed(self, error: ImageError) -> "Item":
        """The same image, with nothing but its error to go on with."""
        return replace(self, photo=None, result=None, error=error)

    def crashed(self, where: str) -> "Item":
        """The same image as one that ends the process that works on it."""
        sentence = f"The process that was to {where} it died of it, again and again; is it damaged, or far too large?"
        return self.failed(ImageError(sentence, "crashed"))


def header(found: Input, max_pixels: int) -> codec.Header:
    """What the first bytes of an input say of it. Raises ImageError for one that is sure to fail."""
    if found.error is not None:
        raise ImageError(found.error, found.error_code or "unreadable")
    try:
        head = store.read(found.uri, HEADER_BYTES)
        try:
            return codec.read_header(head, max_pixels)
        except ImageError:
            if len(head) < HEADER_BYTES:
                raise
            return codec.read_header(store.read(found.uri), max_pixels)  # a TIFF may keep its header at its end
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise ImageError(str(error)) from None


def read(tasks: Sequence[Task], max_pixels: int) -> list[Item]:
    """Read, hash and decode some inputs; stop where a recorded result turns out to be right still.

    Raises StoreUnavailable.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(partial(_read, max_pixels=max_pixels), tasks))


def _read(task: Task, max_pixels: int) -> Item:
    found, recorded = task.input, task.recorded
    item = Item(found, task.variant)
    if found.error is not None:
        return item.failed(ImageError(found.error, found.error_code or "unreadable"))
    try:
        if found.etag is None:
            stored = store.stat(found.uri) or store.Stored(found.uri, 0, "")
            item = replace(item, input=replace(found, etag=stored.etag, size=stored.size))
            if recorded and recorded["input_etag"] == stored.etag:
                return replace(item, recorded=recorded)
        data = store.read(found.uri)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return item.failed(ImageError(str(error)))
    item = replace(item, sha256=sha256(data))
    if recorded and recorded["work_id"] == task.variant.recipe.work_id(item.sha256):
        return replace(item, recorded=recorded)
    try:
        return replace(item, photo=codec.decode(data, max_pixels))
    except ImageError as error:
        return item.failed(error)


def edit(items: Sequence[Item], bench: "Bench") -> list[Item]:
    """Edit the photos among the items, those that get the same edit together; if that fails, one by one.

    Raises what stops an Editor from preparing the job's own edit, and StoreUnavailable.
    """
    groups: dict[Recipe | None, list[Item]] = {}
    for item in items:
        groups.setdefault(item.variant.recipe if item.photo else None, []).append(item)
    others = groups.pop(None, [])
    return others + [done for group in groups.values() for done in _edited(group, bench)]


def _edited(group: list[Item], bench: "Bench") -> list[Item]:
    began = time.perf_counter()
    queries = [item.photo.image for item in group if item.photo]
    seeds = [item.variant.recipe.seed_for(item.sha256 or "") for item in group]
    try:
        results = bench.edit(queries, group[0].variant, seeds)
    except StoreUnavailable:
        raise
    except Exception as error:  # whatever one image can do to a batch must not cost its neighbours
        if len(group) == 1:
            return [group[0].failed(_image_error(error))]
        return [done for item in group for done in _edited([item], bench)]
    share = (time.perf_counter() - began) / len(group)
    return [
        replace(item, result=result, seconds=share, numerics=bench.numerics)
        for item, result in zip(group, results, strict=True)
    ]


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    if isinstance(error, EditTransferError):
        return ImageError(f"What its row asks for cannot be done: {error}", "bad_override")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    code = "out_of_memory" if out_of_memory(error) else "edit_failed"
    return ImageError(f"The edit failed: {reason[:200]}", code)


def write(items: Sequence[Item], output: str, job_id: str, after: datetime | None = None) -> list[dict[str, Any]]:
    """Encode and store some results, and append their rows to the manifest, finished `after` all that are there.

    Returns the rows. Raises StoreUnavailable.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        rows = list(pool.map(partial(_write, output=output, job_id=job_id, after=after), items))
    changed = [row for row, item in zip(rows, items, strict=True) if row is not item.recorded]
    if changed:
        manifest.append(store.join(output, "manifest"), changed)
    return rows


def _write(item: Item, output: str, job_id: str, after: datetime | None) -> dict[str, Any]:
    """One result; returns its manifest row, for a failed item one that says why."""
    finished = {"finished_at": manifest.stamp(after)}
    if item.recorded:
        same = item.recorded["input_etag"] == item.input.etag
        return item.recorded if same else item.recorded | {"input_etag": item.input.etag} | finished
    try:
        outcome = _failure(item.error) if item.error else _stored(item, output)
    except StoreUnavailable:
        raise
    except Exception as error:  # an image that its format cannot hold, or a name that the store refuses
        outcome = _failure(ImageError(f"The result cannot be written: {error}", "not_written"))
    return _row(item) | outcome | {"job_id": job_id} | finished


def _row(item: Item) -> dict[str, Any]:
    recipe = item.variant.recipe
    size = item.photo.image.size if item.photo else (None, None)
    return {
        "uri": item.input.uri,
        "relative_path": item.input.relative_path,
        "input_sha256": item.sha256,
        "input_etag": item.input.etag,
        "width": size[0],
        "height": size[1],
        "work_id": recipe.work_id(item.sha256),
        "adapter": recipe.adapter_name,
        "adapter_version": recipe.adapter_version,
        "adapter_digest": recipe.adapter,
        "base": recipe.base,
        "steps": recipe.steps,
        "seed": recipe.seed_for(item.sha256) if item.sha256 else None,
        "seconds": item.seconds,
        "numerics": item.numerics,
    }


def _failure(error: ImageError) -> dict[str, Any]:
    return {"status": manifest.FAILED, "error_code": error.code, "error": str(error)}


def _stored(item: Item, output: str) -> dict[str, Any]:
    assert item.photo and item.result
    format = item.variant.recipe.format
    with _FINISHING:
        image, told = finished(item.photo.image, item.result)
    data = codec.encode(item.photo, image, result_format(item.input.relative_path, format))
    uri = store.join(output, "images", result_name(item.input.relative_path, format))
    store.write(uri, data)
    return {
        "status": manifest.DONE,
        "result_uri": uri,
        "result_sha256": sha256(data),
        "scores": told,
    }
