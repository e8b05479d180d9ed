"""Encoded views, kept beside the checkpoints: for processes that train together, and for a training that goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from infra import store
from infra.errors import StoreError
from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from training.fit.views import PART, SMALLEST_CROP, TOGETHER, TURNED, Glance, View, encode_part, parts_of
from training.loop import process

RECIPE = 1  # another number where views are cut or encoded in another way, or kept in another form
DIGEST = 32  # bytes in front of a file, the SHA-256 of the rest

Tell = Callable[[int, int, int], None]  # views that this process is done with, those of them found, views in all


class Encodings:
    """Encodes views, as `views.encode` does, but each only once: whatever processes train together, and however often
    they are killed and start again.

    Every process encodes a share, writes it below `folder` and reads those of the others. What is missing or damaged is
    encoded again, and where nothing can be written, every process encodes everything.
    """

    def __init__(self, folder: str, tell: Tell) -> None:
        self.folder = folder
        self.tell = tell

    def __call__(self, editor: Editor, wanted: Sequence[Glance]) -> list[View]:
        """The views, in order. Raises ImageError as `views.encode` does."""
        seen = {id(pair): _digest(pair) for pair in {id(each.pair): each.pair for each in wanted}.values()}
        parts = [_Part(self.folder, editor, part, [seen[id(each.pair)] for each in part]) for part in parts_of(wanted)]
        processes = dist.get_world_size() if dist.is_initialized() else 1
        views: dict[int, list[View]] = {}
        done = found = 0
        for number in range(process(), len(parts), processes):
            part = parts[number]
            kept = part.read()
            views[number] = kept or part.make()
            done, found = done + len(part.wanted), found + len(part.wanted) * bool(kept)
            self.tell(done, found, len(wanted))
        if processes > 1:
            dist.all_reduce(torch.zeros(1, device=editor.family.device))  # by now the others have written theirs
        return [view for number, part in enumerate(parts) for view in views.get(number) or part.read() or part.make()]


class _Part:
    """A few views, kept in one file under a name that says what they are; `seen` are digests of their pairs."""

    def __init__(self, folder: str, editor: Editor, wanted: Sequence[Glance], seen: Sequence[str]) -> None:
        self.folder, self.editor, self.wanted, self.seen = folder, editor, wanted, seen

    @cached_property
    def uri(self) -> str:
        parameter = next(self.editor.family.vae.parameters())
        deciding = {
            "recipe": [RECIPE, PART, TOGETHER, SMALLEST_CROP, TURNED],
            "base": [self.editor.revision, self.editor.max_area, self.editor.compact],
            "numerics": [parameter.device.type, str(parameter.dtype)],
            "views": [
                [seen, each.index, each.mirrored, each.seed] for seen, each in zip(self.seen, self.wanted, strict=True)
            ],
        }
        named = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
        return store.join(self.folder, f"{named[:32]}.safetensors")

    def make(self) -> list[View]:
        """Encode them, and keep them if that can be."""
        views = encode_part(self.editor, self.wanted)
        data = save({name: tensor.cpu().contiguous() for name, tensor in _tensors(views).items()})
        with suppress(StoreError):  # they only save time
            store.write(self.uri, hashlib.sha256(data).digest() + data)
        return [view.ready(self.editor) for view in views]

    def read(self) -> list[View] | None:
        """What was kept; None where nothing is, or it is not as it was written."""
        try:
            data = store.read(self.uri)
        except StoreError:
            return None
        if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
            return None
        tensors = load(data[DIGEST:])
        views = (_view(tensors, place, self.editor.compact) for place in range(len(self.wanted)))
        return [view.ready(self.editor) for view in views]


def _digest(pair: Pair) -> str:
    """Names a pair by what is seen of it, too: pictures may be cropped after they were read."""
    seen = hashlib.sha256(pair.digest.encode())
    for picture in (pair.before, pair.after):
        seen.update(f"{picture.size}".encode() + picture.tobytes())
    return seen.hexdigest()


def _tensors(views: Sequence[View]) -> dict[str, torch.Tensor]:
    told: dict[str, Any] = {}
    for place, view in enumerate(views):
        told |= {f"{place}.before": view.before, f"{place}.after": view.after, f"{place}.grid": torch.tensor(view.grid)}
        if view.shown:
            told |= {f"{place}.shown.before": view.shown[0], f"{place}.shown.after": view.shown[1]}
    return told


def _view(tensors: dict[str, torch.Tensor], place: int, compact: int) -> View:
    rows, columns = tensors[f"{place}.grid"].tolist()
    shown = (tensors[f"{place}.shown.before"], tensors[f"{place}.shown.after"]) if compact > 1 else None
    return View(tensors[f"{place}.before"], tensors[f"{place}.after"], (rows, columns), shown, compact)
