"""Training batches: every tuple has an edit, a pair and a query of its own. B tuples, S tokens, C channels, D dims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.transfer.layout import Grid
from training.scenes import EVERY_FAMILY, Family, Scene, draw_parameters, draw_subjects, join_scenes, render
from training.scenes.uniform import Uniform
from training.scenes.wear import wear

RENDERED_TOGETHER = 64  # on a CPU: more fall out of its cache
WORN = 0.1  # of the pictures that are shown have noise, and as many are JPEGs
DIMS = max(family.dims + len(family.circular) for family in EVERY_FAMILY.values())  # circular ones count twice

Encoder = Callable[[Tensor], Tensor]  # images B3HW in [-1, 1] -> tokens BSC


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clean tokens BSC of the four panels, which edit they show, and its parameters, circular ones opened."""

    before: Tensor
    after: Tensor
    query: Tensor
    truth: Tensor
    edit: Tensor  # (B,) index among the families of the phase
    parameters: Tensor  # (B, D), NaN where the family has fewer
    pair_grid: Grid
    query_grid: Grid

    def every(self, stride: int, start: int) -> Batch:
        """Each `stride`-th tuple from `start` on."""
        chosen: dict[str, Any] = {
            name: value[start::stride] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **chosen)

    def __len__(self) -> int:
        return len(self.edit)


def draw_batch(
    shares: Mapping[str, int],
    encode: Encoder,
    grids: tuple[Grid, Grid],
    multiple: int,
    generator: torch.Generator,
) -> Batch:
    """Draw `shares[name]` tuples of each family; `grids` are those of pair and query, in tokens of `multiple` px."""
    families = [EVERY_FAMILY[name] for name in shares]
    counts = list(shares.values())
    parameters = [draw_parameters(family, n, generator) for family, n in zip(families, counts, strict=True)]
    panels: list[Tensor] = []
    for rows, columns in grids:
        size = (rows * multiple, columns * multiple)
        scenes = [draw_subjects(family, n, size, generator) for family, n in zip(families, counts, strict=True)]
        edited = [f.apply(scene, p) for f, scene, p in zip(families, scenes, parameters, strict=True)]
        panels += [_render(join_scenes(side), size) for side in (scenes, edited)]
    panels[:3] = [wear(picture, Uniform(generator), WORN) for picture in panels[:3]]  # the truth stays clean
    panels = [encode(picture * 2 - 1) for picture in panels]
    device = generator.device
    return Batch(
        before=panels[0],
        after=panels[1],
        query=panels[2],
        truth=panels[3],
        edit=torch.arange(len(counts), device=device).repeat_interleave(
            torch.tensor(counts, device=device), output_size=sum(counts)
        ),
        parameters=torch.cat([_open(f, p) for f, p in zip(families, parameters, strict=True)]),
        pair_grid=grids[0],
        query_grid=grids[1],
    )


def _open(family: Family, p: Tensor) -> Tensor:
    """(B, D) parameters, then circular ones as points on a circle instead of numbers, then NaN."""
    angle = 2 * torch.pi * p[:, list(family.circular)]
    straight = p[:, [dim for dim in range(family.dims) if dim not in family.circular]]
    opened = torch.cat([straight, torch.cos(angle) / 2, torch.sin(angle) / 2], 1)
    return F.pad(opened, (0, DIMS - opened.shape[1]), value=torch.nan)


def _render(scene: Scene, size: tuple[int, int]) -> Tensor:
    if scene.parts.device.type != "cpu":
        return render(scene, size)
    return torch.cat([render(part, size) for part in _split(scene, RENDERED_TOGETHER)])


def _split(scene: Scene, count: int) -> Iterator[Scene]:
    for start in range(0, len(scene.parts), count):
        yield scene.with_(**{name: tensor[start : start + count] for name, tensor in vars(scene).items()})
