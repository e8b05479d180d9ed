"""The running batch: requests at different steps, with different adapters and pairs, and one step of all of them.

A request joins by having its query run once, makes its steps in whatever company, and is decoded on its own. What it
computes is what `Editor.edit` computes, bit for bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image

from pipelines.faults import leave_if_broken, out_of_memory
from pipelines.transfer import passes
from pipelines.transfer.layout import Grid, Layout
from pipelines.transfer.pictures import to_images, to_tensor
from pipelines.transfer.sampler import euler_move
from serving.engine.request import Edited, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.transfer import Editor, Prefix
    from pipelines.transfer.family import Prompt
    from pipelines.transfer.mixture import Mixture
    from serving.engine.ticket import Ticket


Each = TypeVar("Each")


@dataclass(frozen=True, eq=False)
class Arrival:
    """A request that is ready to join: the name of its adapter in the transformer, the keys and values of its pairs,
    and its text; those that share a pass share the text."""

    ticket: Ticket
    name: str | None
    prefix: Prefix
    prefix_cached: bool
    prompt: Prompt

    @property
    def text(self) -> str | None:
        """Names its text: that of its adapter, or the base's."""
        worn = self.ticket.work.worn
        return worn.prompt if worn else None


@dataclass(eq=False)
class Running:
    """One request in the batch. `x_1SC` is what its result is so far, `step` the number of steps made."""

    arrival: Arrival
    context: passes.Context
    x_1SC: Tensor
    sigmas: Sequence[float]
    step: int = 0
    company: list[int] = field(default_factory=list)
    joined: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> bool:
        return self.step == len(self.sigmas) - 1


class Batch:
    """All that runs on one Editor."""

    def __init__(self, editor: Editor, mixture: Mixture) -> None:
        self.editor, self.mixture = editor, mixture
        self.running: list[Running] = []
        self.most = 2**31  # images in one pass; fewer once the memory has proved too small for more
        self.passes = self.images_stepped = 0

    def join(self, arrivals: Sequence[Arrival]) -> None:
        """Let requests take part from the next step on; their queries run once, together where they can."""
        kinds: dict[tuple[str, Grid | Layout, str | None], list[tuple[Arrival, Layout]]] = {}
        for arrival in arrivals:
            grid, prefix = self.editor.grid(arrival.ticket.work.query), arrival.prefix
            plan = prefix.layout(grid)
            alike = plan if prefix.attention == "joint" else grid  # there pairs and query run as one block
            kinds.setdefault((prefix.attention, alike, arrival.text), []).append((arrival, plan))
        for group in kinds.values():
            for start in range(0, len(group), self.most):
                self._attempt(group[start : start + self.most], self._welcome, lambda each: each[0].ticket)

    def _welcome(self, group: Sequence[tuple[Arrival, Layout]]) -> None:
        family = self.editor.family
        family.prompt = group[0][0].prompt
        tokens = torch.cat([family.encode(to_tensor([arrival.ticket.work.query])) for arrival, _ in group])
        with self.mixture.worn([arrival.name for arrival, _ in group]):
            read = passes.contexts(
                family, tokens, [arrival.prefix for arrival, _ in group], [plan for _, plan in group]
            )
        self.running += [
            self._begun(arrival, plan, context) for (arrival, plan), context in zip(group, read, strict=True)
        ]

    def _begun(self, arrival: Arrival, plan: Layout, context: passes.Context) -> Running:
        family, work = self.editor.family, arrival.ticket.work
        noise = family.noise([work.seed], plan.result).to(family.device)
        sigmas = family.sigmas(work.steps or self.editor.default_steps, plan.result.tokens)
        return Running(arrival, context, noise, sigmas)

    def leave(self, gone: Callable[[Running], bool]) -> list[Running]:
        """Take requests out."""
        left = [each for each in self.running if gone(each)]
        self.running = [each for each in self.running if each not in left]
        return left

    def step(self) -> None:
        """One step of every request. Whoever cannot make it gets its error; the others go on."""
        kinds: dict[object, list[Running]] = {}
        for each in self.running:
            kinds.setdefault((each.context.kind, each.arrival.text), []).append(each)
        for group in kinds.values():
            for start in range(0, len(group), self.most):
                self._attempt(group[start : start + self.most], self._advance, lambda each: each.arrival.ticket)

    def _attempt(
        self, group: Sequence[Each], work: Callable[[Sequence[Each]], None], of: Callable[[Each], Ticket]
    ) -> None:
        """Do something with a group; if that fails, with halves of it: what one request does is no other's affair."""
        try:
            work(group)
        except Exception as error:
            leave_if_broken(error)
            if out_of_memory(error) and torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(group) == 1:
                of(group[0]).fail(error)
                return
            middle = len(group) // 2
            if out_of_memory(error):
                self.most = middle
            self._attempt(group[:middle], work, of)
            self._attempt(group[middle:], work, of)

    def _advance(self, group: Sequence[Running]) -> None:
        velocity = self._velocity(group)
        for each, own in zip(group, velocity.split(1), strict=True):
            self._move(each, own, len(group))

    def _velocity(self, group: Sequence[Running]) -> Tensor:
        self.passes += 1
        self.images_stepped += len(group)
        self.editor.family.prompt = group[0].arrival.prompt
        family, read = self.editor.family, [each.context for each in group]
        velocity = passes.guided(family, lambda x, t: passes.velocities(family, x, t, read))
        with self.mixture.worn([each.arrival.name for each in group]):
            return velocity(
                torch.cat([each.x_1SC for each in group]), torch.tensor([each.sigmas[each.step] for each in group])
            )

    def _move(self, each: Running, velocity: Tensor, company: int) -> None:
        now, then = each.sigmas[each.step : each.step + 2]
        ahead = euler_move(each.x_1SC, velocity, now, 0.0)
        each.x_1SC = euler_move(each.x_1SC, velocity, now, then)
        each.step += 1
        each.company.append(company)
        preview = self._preview(each, ahead) if each.arrival.ticket.work.previews else None
        each.arrival.ticket.tell(Progress(step=each.step, steps=len(each.sigmas) - 1, preview=preview))

    def _preview(self, each: Running, tokens_1SC: Tensor) -> Image.Image | None:
        try:
            return self._decoded(each, tokens_1SC)
        except Exception as error:  # nobody's step may fail for want of a preview
            leave_if_broken(error)
            return None

    def finish(self, each: Running) -> None:
        """Decode a request that has made its steps, and answer it."""
        began = time.monotonic()
        ticket = each.arrival.ticket
        try:
            image = self._decoded(each, each.x_1SC)
            coded = self.editor.coded(ticket.work.query) if ticket.work.coded else None
        except Exception as error:
            leave_if_broken(error)
            ticket.fail(error)
            return
        decoded = time.monotonic()
        timings = {
            "wait": ticket.ready - ticket.begun,
            "prepare": each.joined - ticket.ready,
            "steps": began - each.joined,
            "decode": decoded - began,
        }
        company = sum(each.company) / len(each.company)
        cached = each.arrival.prefix_cached
        ticket.answer(Edited(image=image, prefix_cached=cached, coded=coded, timings=timings, batch=company))

    def _decoded(self, each: Running, tokens_1SC: Tensor) -> Image.Image:
        [image] = to_images(self.editor.family.decode(tokens_1SC, each.context.plan.result.grid))
        return image
