"""Work spread over processes that share what one of them has loaded, one thread each."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from torch import multiprocessing

from infra import cluster
from infra.errors import EditTransferError

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """How many processes this one may keep busy; 1 where they could not share its memory."""
    return cluster.cores() if sys.platform == "linux" else 1


def spread(work: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Iterator[Result]:
    """The results of `work`, in order of the items; those are pickled, `work` and what it holds is not.

    Raises:
        EditTransferError: a process ended before its work was done.
    """
    if min(processes, len(items)) <= 1:
        yield from map(work, items)
        return
    try:
        with ProcessPoolExecutor(min(processes, len(items)), get_context("fork"), _begin, (work,)) as pool:
            yield from pool.map(_do, items)
    except BrokenProcessPool as error:
        raise EditTransferError(
            "A process ended in the middle of its work, probably for want of memory. Use --processes 1."
        ) from error


_work: Callable[[Any], Any]  # of a process that was made for it


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who hands out the work
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    multiprocessing._prctl_pr_set_pdeathsig(signal.SIGTERM)  # type: ignore[attr-defined]  # nobody waits then
    torch.set_num_threads(1)


def _do(item: Any) -> Any:
    return _work(item)
