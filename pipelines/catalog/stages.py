"""The stages of the job, on one item at a time: read and decode, edit, encode and write. No Ray in here.

An item that cannot be dealt with carries its error on through the stages, and becomes a row that explains it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops, ImageStat

from infra import store
from infra.errors import ImageError, PairError, StoreError
from pipelines import adapters, codec
from pipelines.adapters import Worn
from pipelines.catalog import manifest
from pipelines.catalog.listing import Input, result_name
from pipelines.catalog.plan import Task
from pipelines.catalog.work import Recipe, sha256

if TYPE_CHECKING:
    from pipelines.transfer import Editor, Pair, Prefix
    from pipelines.transfer.layout import Attention

HEADER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Item:
    """One image on its way through the job. `seconds` is its share of the time its batch took to edit."""

    input: Input
    sha256: str | None = None
    photo: codec.Photo | None = None
    result: Image.Image | None = None
    error: ImageError | None = None
    recorded: dict[str, Any] | None = None
    seconds: float | None = None


def ready_editor(
    base: str | None,
    pairs: Sequence["Pair"],
    attention: "Attention",
    batch_size: int,
    worn: Sequence[Worn] = (),
    cache: str = "",
) -> tuple["Editor", "Prefix"]:
    """An Editor that remembers the pairs, as every worker has one.

    On a CPU it computes with one thread, always: the number of threads decides the last bit of a sum, and so,
    now and then, a pixel.

    Raises BaseNotFound, AdapterNotFound, AdapterDamaged and PairError.
    """
    import torch

    from pipelines.transfer import Editor

    torch.set_num_threads(1)
    loras = adapters.loras(worn, Path(cache))
    editor = Editor.load(base, adapter=loras, attention=attention, batch_size=batch_size)
    try:
        return editor, editor.remember(pairs)
    except ImageError as error:
        raise PairError(f"This pair cannot be used: {error}") from None


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
    except StoreError as error:
        raise ImageError(str(error)) from None


def read(task: Task, recipe: Recipe, max_pixels: int) -> Item:
    """Read, hash and decode one input; stop at the hash if its recorded result is still right."""
    found = task.input
    if found.error is not None:
        return Item(found, error=ImageError(found.error, found.error_code or "unreadable"))
    try:
        data = store.read(found.uri)
    except StoreError as error:
        return Item(found, error=ImageError(str(error)))
    digest = sha256(data)
    if task.recorded and task.recorded["work_id"] == recipe.work_id(digest):
        return Item(found, digest, recorded=task.recorded)
    try:
        return Item(found, digest, codec.decode(data, max_pixels))
    except ImageError as error:
        return Item(found, digest, error=error)


def edit(items: Sequence[Item], editor: "Editor", prefix: "Prefix", recipe: Recipe) -> list[Item]:
    """Edit the photos among the items as one batch; if that fails, one by one, and only the culprit fails."""
    photos = [item for item in items if item.photo]
    others = [item for item in items if not item.photo]
    try:
        return others + _edited(photos, editor, prefix, recipe)
    except Exception as error:  # whatever one image can do to a batch must not cost its neighbours
        if len(photos) == 1:
            return [*others, replace(photos[0], error=_image_error(error))]
        return others + [done for item in photos for done in edit([item], editor, prefix, recipe)]


def _edited(items: list[Item], editor: "Editor", prefix: "Prefix", recipe: Recipe) -> list[Item]:
    if not items:
        return []
    began = time.perf_counter()
    queries = [item.photo.image for item in items if item.photo]
    seeds = [recipe.seed_for(item.sha256 or "") for item in items]
    results = editor.edit(queries, prefix, seeds=seeds, steps=recipe.steps)
    share = (time.perf_counter() - began) / len(items)
    return [replace(item, result=result, seconds=share) for item, result in zip(items, results, strict=True)]


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ImageError(f"The edit failed: {reason[:200]}", "edit_failed")


def write(item: Item, recipe: Recipe, output: str, job_id: str) -> dict[str, Any]:
    """Encode and store one result. Returns the manifest row, for a failed item one that says why."""
    finished = {"finished_at": datetime.now(UTC)}
    if item.recorded:
        return item.recorded | {"input_etag": item.input.etag} | finished
    try:
        outcome = _failure(item.error) if item.error else _stored(item, recipe, output)
    except Exception as error:  # an image that its format cannot hold, or a name that the store refuses
        outcome = _failure(ImageError(f"The result cannot be written: {error}", "not_written"))
    return _row(item, recipe) | outcome | {"job_id": job_id} | finished


def _row(item: Item, recipe: Recipe) -> dict[str, Any]:
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
    }


def _failure(error: ImageError) -> dict[str, Any]:
    return {"status": manifest.FAILED, "error_code": error.code, "error": str(error)}


def _stored(item: Item, recipe: Recipe, output: str) -> dict[str, Any]:
    assert item.photo and item.result
    data = codec.encode(item.photo, item.result, recipe.format)
    uri = store.join(output, "images", result_name(item.input.relative_path, recipe.format))
    store.write(uri, data)
    return {
        "status": manifest.DONE,
        "result_uri": uri,
        "result_sha256": sha256(data),
        "scores": {"change": _change(item.photo.image, item.result)},
    }


def _change(query: Image.Image, result: Image.Image) -> float:
    """Mean absolute difference of query and result, from 0 (untouched) to 1."""
    return sum(ImageStat.Stat(ImageChops.difference(query, result)).mean) / 3 / 255
