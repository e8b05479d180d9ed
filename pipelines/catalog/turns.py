"""Whose turn it is in an output folder: one `apply`, `publish` or `revert` works there at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console

from infra.errors import EditTransferError, LeaseHeld
from infra.registry import Lease, lease

PURPOSE = "publish"  # the first that took turns: an older version still sees who works here
SECONDS_BETWEEN_LOOKS = 2
AGAIN = "Nothing is lost: run the same command again to go on."


@contextmanager
def turn(place: str, waiting: Callable[[LeaseHeld], None] | None = None) -> Iterator[Lease]:
    """Be alone at an output folder while the block lasts; nothing of it stays behind.

    waiting  waits for one who works there, and is told of it every time that somebody does

    Raises LeaseHeld if another works there and nobody is `waiting`, and StoreError.
    """
    with ExitStack() as held:
        yield _entered(held, place, waiting)


def _entered(held: ExitStack, place: str, waiting: Callable[[LeaseHeld], None] | None) -> Lease:
    while True:
        try:
            return held.enter_context(lease(place, "jobs", PURPOSE, what=place, traceless=True))
        except LeaseHeld as error:
            if waiting is None:
                raise
            waiting(error)
        time.sleep(SECONDS_BETWEEN_LOOKS)


class Waiting:
    """Says once for whom it waits."""

    def __init__(self, console: Console) -> None:
        self.console, self.silent = console, False

    def __call__(self, held: LeaseHeld) -> None:
        if not self.silent:
            self.console.print(f"Waiting: {held}", highlight=False, markup=False, soft_wrap=True)
        self.silent = True


def check(held: Lease, place: str) -> None:
    """Raises EditTransferError if somebody else may work there by now."""
    if not held.holds():
        raise EditTransferError(
            f"{place}: another process may work there by now, for this one was stopped, or without the store, for too"
            f" long. {AGAIN}"
        )
