"""Who does the copying of `publish` and `revert`: threads, under a lease, with a bar that shows how far they are."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.errors import EditTransferError, StoreError
from infra.registry import Lease
from pipelines.catalog import turns
from pipelines.catalog.publication import StagedJob
from pipelines.catalog.turns import AGAIN

THREADS = 32  # as many as the store keeps connections
SECONDS_BETWEEN_LINES = 10

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Crew:
    """The threads of one command, and what they work for."""

    job: StagedJob
    held: Lease
    pool: ThreadPoolExecutor
    console: Console

    def each(self, act: Callable[[Given], Made], items: Iterable[Given]) -> list[Made]:
        """`act` on every item, several at a time. What it raises stops the rest."""
        begun = [self.pool.submit(act, item) for item in items]
        try:
            return [future.result() for future in begun]
        except BaseException:
            for future in begun:
                future.cancel()
            raise

    def check(self) -> None:
        """Raises EditTransferError if somebody else may be at this work by now."""
        turns.check(self.held, self.job.place)


@contextmanager
def working(job: StagedJob, console: Console) -> Iterator[Crew]:
    """A crew that is alone at its output folder. What the store does to it is an EditTransferError: the work breaks."""
    with turns.turn(job.place) as held, ThreadPoolExecutor(THREADS) as pool:
        try:
            yield Crew(job, held, pool, console)
        except StoreError as error:
            raise EditTransferError(f"{error} {AGAIN}") from error


class Bar:
    """How it shows on stderr: a bar on a terminal, a line now and then anywhere else. A context manager."""

    def __init__(self, doing: str, total: int, console: Console) -> None:
        self.doing, self.total, self.console, self.done = doing, total, console, 0
        self.spoke = time.monotonic()
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def add(self, count: int) -> None:
        """So many more results are dealt with."""
        self.done += count
        self.bar.update(self.task, completed=self.done)
        if not self.console.is_terminal and time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = time.monotonic()
            self.console.print(f"{self.doing}: {self.done} of {self.total}", highlight=False)
