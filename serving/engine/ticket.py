"""One request inside an engine: what is asked for, until when, and who waits for the answer."""

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from infra.errors import DeadlinePassed
from serving.engine.request import Edited, Progress, Work

Tell = Callable[[Progress], None]


@dataclass(eq=False)
class Ticket:
    """A request from its arrival to its answer. Times are those of `time.monotonic`.

    ready  when its turn came, with its adapter and its pairs on this machine
    """

    work: Work
    on_progress: Tell | None = None
    future: "Future[Edited]" = field(default_factory=Future)
    begun: float = field(default_factory=time.monotonic)
    ready: float = 0.0

    @property
    def key(self) -> str:
        """What it wears, "" for nothing."""
        return self.work.worn.digest if self.work.worn else ""

    @property
    def over(self) -> bool:
        """Whether nobody waits for an answer any more; one whose time is up gets that for an answer."""
        if self.work.seconds is not None and time.monotonic() > self.begun + self.work.seconds:
            self.fail(DeadlinePassed(f"The edit was not done within {self.work.seconds:g} seconds. Try again later."))
        return self.future.done()

    def take_turn(self) -> None:
        """From now on it does not wait for others any more."""
        self.ready = time.monotonic()

    def tell(self, progress: Progress) -> None:
        """Say how far it is."""
        if self.on_progress:
            with suppress(Exception):  # whoever listens must not stop the others
                self.on_progress(progress)

    def answer(self, edited: Edited) -> None:
        """The end, unless nobody waits for it any more."""
        with suppress(InvalidStateError):
            self.future.set_result(edited)

    def fail(self, error: BaseException) -> None:
        """Another end."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
