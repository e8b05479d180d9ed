"""The engine: one Editor that edits for everybody at once, in a thread of its own.

    submit -> fetch adapter and pairs (other threads) -> wait for a turn (fairness) -> join -> steps -> decode -> answer

Requests join and leave between steps. Nothing that waits for a store happens in the engine's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import EditTransferError, Interrupted, UsageError
from pipelines import texts
from pipelines.faults import leave_if_broken
from pipelines.tuning import Tuning
from serving.engine.batch import Arrival, Batch
from serving.engine.caches import Shelf, Wardrobe
from serving.engine.fairness import FairQueue
from serving.engine.fetching import Fetched, Fetcher
from serving.engine.request import Description, Edited, Work
from serving.engine.ticket import Tell, Ticket

if TYPE_CHECKING:
    from pipelines.transfer import Prefix

MEBIBYTE = 2**20
FETCHING = 4  # adapters on their way from the registry at a time


class Engine:
    """Edits images, any number at a time, each with an adapter, pairs, seed and number of steps of its own.

    Args:
        base: as `Editor.load` takes it.
        cache: folder on this machine for copies of adapters.
        max_batch: requests that run at a time; more wait.
        adapters_mib, prefixes_mib: memory for adapters and for the keys and values of pairs that are not in use.
        max_pixels: of an adapter's own pairs.
        tuned: how the base is run, as `Tuning` takes it.

    Raises BaseNotFound, and UsageError for a tuning that cannot be had.
    """

    def __init__(
        self,
        base: str | None,
        cache: str,
        *,
        max_batch: int = 8,
        adapters_mib: int = 1024,
        prefixes_mib: int = 1024,
        max_pixels: int = 100_000_000,
        tuned: Mapping[str, Any] | None = None,
    ) -> None:
        from pipelines.transfer import Editor, bases
        from pipelines.transfer.mixture import Mixture

        self.editor = Editor.load(base, tuned=_checked(Tuning(**tuned or {})))
        self._text = texts.of_base(bases.find_base(base))
        self._usual = self.editor.family.prompt
        mixture = Mixture(self.editor.family)
        self.batch, self._mixture, self.max_batch = Batch(self.editor, mixture), mixture, max_batch
        self.wardrobe = Wardrobe(self.editor, mixture, adapters_mib * MEBIBYTE)
        self.prefixes: Shelf[Prefix] = Shelf(prefixes_mib * MEBIBYTE)
        self._fetcher = Fetcher(Path(cache), max_pixels, self.editor.fit)
        self._pool = ThreadPoolExecutor(FETCHING, "fetch")
        self._inbox: queue.SimpleQueue[tuple[Ticket, Fetched] | None] = queue.SimpleQueue()
        self._waiting: FairQueue[tuple[Ticket, Fetched]] = FairQueue()
        self._tickets: set[Ticket] = set()
        self._lock, self._stopping, self.ended = threading.Lock(), False, 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def describe(self) -> Description:
        """What it runs."""
        editor = self.editor
        return Description(
            base=editor.base,
            revision=editor.revision,
            attention=editor.attention,
            steps=editor.default_steps,
            max_area=editor.max_area,
            multiple=editor.family.multiple,
            text=self._text,
            tuning=editor.tuned.mark,
        )

    def submit(self, work: Work, tell: Tell | None = None) -> Future[Edited]:
        """Edit an image as soon as it can be done. `cancel()` of what is returned frees its place at the next step.

        `tell` is called from other threads, and must not wait. The future raises AdapterNotFound, AdapterDamaged,
        StoreError, PairError, ImageError, DeadlinePassed, and Interrupted if the engine stops before.
        """
        ticket = Ticket(work, tell)
        with self._lock:
            if self._stopping:
                ticket.fail(Interrupted("This engine is about to stop. Send the request again."))
                return ticket.future
            self._tickets.add(ticket)
        ticket.future.add_done_callback(lambda _: self._forget(ticket))
        if fetched := self._fetcher.known(work):
            self._inbox.put((ticket, fetched))
        else:
            self._pool.submit(self._fetch, ticket)
        return ticket.future

    def state(self) -> dict[str, float]:
        """Numbers for whoever looks after it. Raises EditTransferError if it can edit no more."""
        if not self._thread.is_alive():
            raise EditTransferError("The thread of this engine has ended.")
        with self._lock:
            inside = len(self._tickets)
        running = len(self.batch.running)
        return {
            "running": running,
            "waiting": max(0, inside - running),
            "ended": self.ended,
            "passes": self.batch.passes,
            "images_stepped": self.batch.images_stepped,
            "adapters": len(self.wardrobe.shelf),
            "adapter_bytes": self.wardrobe.shelf.nbytes,
            "adapters_loaded": self.wardrobe.shelf.misses,
            "prefixes": len(self.prefixes),
            "prefix_bytes": self.prefixes.nbytes,
            "prefix_hits": self.prefixes.hits,
            "prefix_misses": self.prefixes.misses,
        }

    def stop(self) -> None:
        """End now: whoever waits is told to send it again."""
        with self._lock:
            self._stopping = True
        self._fail_all(Interrupted("The engine stopped before this was done. Send the request again."))
        self._inbox.put(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._thread.join()

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            left = list(self._tickets)
        for ticket in left:
            ticket.fail(error)

    def _forget(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.discard(ticket)
            self.ended += 1

    def _fetch(self, ticket: Ticket) -> None:
        try:
            self._inbox.put((ticket, self._fetcher.fetch(ticket.work)))
        except Exception as error:
            ticket.fail(error)

    def _run(self) -> None:
        from pipelines.transfer.invariance import editing

        with editing(self.editor.family.device):
            while not self._stopping:
                try:
                    self._turn()
                except Exception as error:  # a mistake of ours: nobody shall wait for ever
                    leave_if_broken(error)
                    self._fail_all(error)

    def _turn(self) -> None:
        """Take in who came, let go who left, let in who is next, make a step, answer who is done."""
        self._take_in()
        self._waiting.discard(lambda each: each[0].over)
        self.batch.leave(lambda each: each.arrival.ticket.over)
        self._let_in()
        self.batch.step()
        for each in self.batch.leave(lambda each: each.done):
            self.batch.finish(each)

    def _take_in(self) -> None:
        idle = not self.batch.running and not len(self._waiting)
        try:
            arrived = self._inbox.get(block=idle)
            while arrived:
                ticket, work = arrived[0], arrived[0].work
                steps = work.steps or self.editor.default_steps
                cost = float(steps * work.query.width * work.query.height)
                self._waiting.put(arrived, (work.tenant, ticket.key), cost)
                arrived = self._inbox.get(block=False)
        except queue.Empty:
            pass

    def _let_in(self) -> None:
        """Fill the free places. While others run, one request at a time that needs its pairs computed first: they
        shall not wait for many of those."""
        arrivals: list[Arrival] = []
        while len(self._waiting) and len(self.batch.running) + len(arrivals) < self.max_batch:
            ticket, fetched = self._waiting.pop()
            if ticket.over:
                continue
            arrival = self._prepared(ticket, fetched, {each.ticket.key for each in arrivals})
            if arrival is None:
                continue
            arrivals.append(arrival)
            if self.batch.running and not arrival.prefix_cached:
                break
        self.batch.join(arrivals)

    def _prepared(self, ticket: Ticket, fetched: Fetched, arriving: set[str]) -> Arrival | None:
        """The request with its adapter put on and its pairs remembered; None if that cannot be done."""
        ticket.take_turn()
        in_use = arriving | {each.arrival.ticket.key for each in self.batch.running}
        try:
            name = self.wardrobe.name(ticket.key, fetched.lora, in_use) if fetched.lora else None
            prompt = self.editor.suited(fetched.prompt) if fetched.prompt else self._usual
            prefix = self.prefixes.get(fetched.key)
            if prefix:
                return Arrival(ticket, name, prefix, prefix_cached=True, prompt=prompt)
            self.editor.family.prompt = prompt
            with self._mixture.worn([name]):
                prefix = self.editor.remember(fetched.pairs, fetched.attention, fetched.compact)
            self.prefixes.put(fetched.key, prefix, prefix.nbytes)
            return Arrival(ticket, name, prefix, prefix_cached=False, prompt=prompt)
        except Exception as error:
            leave_if_broken(error)
            ticket.fail(error)
            return None


def _checked(tuned: Tuning) -> Tuning:
    """Raise UsageError for what goes with batches that begin and end together."""
    if tuned.step_cache != "none" or tuned.compile:
        raise UsageError(
            "An endpoint runs without step caches, which follow one batch from its first step to its last, and without"
            " compiled blocks, which every new mixture of adapters would compile again."
        )
    return tuned
