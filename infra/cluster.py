"""Ray, quietly: the cluster that RAY_ADDRESS names, or one embedded in this process while it is needed."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from infra import store, surroundings, threads
from infra.errors import EditTransferError, UsageError

Answer = TypeVar("Answer")
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entrypoint of a job, and for nobody else


@dataclass(frozen=True)
class Resources:
    """What the connected cluster has, in logical CPUs and GPUs, and where its dashboard is if this process knows."""

    cpus: float
    gpus: float
    dashboard: str | None = None


def submission_id() -> str | None:
    """The id under which Ray Jobs runs this process, or the one that started it; None outside of such a job."""
    try:
        return json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def speaking_aside() -> Iterator[None]:
    """While the block lasts, what Ray tells of dying workers goes to stderr: stdout is for the command's outcome."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def connected(
    cpus: float, address: str | None = None, embedded: float | None = None, dashboard: bool = False
) -> Iterator[Resources]:
    """A connection to Ray with at least this many logical CPUs; one that exists is used, and left as it is.

    An embedded Ray is given as many CPUs as are asked for (`embedded`, if that is more), whatever the machine has: they
    are shares of actors that must run side by side. With a `dashboard` it takes jobs. Raises UsageError if an existing
    cluster is too small or its address is that of a dashboard, and EditTransferError if none answers.
    """
    import ray

    owned, place = not ray.is_initialized(), None
    if owned:
        place = _start(max(cpus, embedded or 0), address, dashboard)
    try:
        found = ray.cluster_resources()
        resources = Resources(found.get("CPU", 0), found.get("GPU", 0), place)
        if resources.cpus < cpus:
            raise UsageError(f"Ray has {resources.cpus:g} CPUs, but {cpus:g} are needed; ask for fewer --workers.")
        yield resources
    finally:
        if owned:
            ray.shutdown()


def elsewhere(work: Callable[..., Answer], *arguments: Any) -> Answer:
    """Do some work in another process of the connected cluster, and wait for it: its memory is not ours.

    Raises what the work raises of our own errors, and EditTransferError if its process dies.
    """
    import ray

    try:
        return ray.get(ray.remote(num_cpus=0)(_patiently).remote(work, *arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EditTransferError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise EditTransferError(f"Ray gave up on some work: {str(error).splitlines()[0]}") from error


def _patiently(work: Callable[..., Answer], *arguments: Any) -> Answer:
    store.be_patient()
    return work(*arguments)


def _start(cpus: float, address: str | None, dashboard: bool) -> str | None:
    """Returns the address of the dashboard, None without."""
    import ray

    if address and address.startswith("http"):
        raise UsageError(
            f"RAY_ADDRESS is {address}, the address of a dashboard. `edit-transfer submit` runs a job there; to work"
            " from here, set it to HOST:PORT of the cluster, or unset it to use this machine alone."
        )
    embedded: dict[str, Any] = {"num_cpus": max(cores(), int(-(-cpus // 1))), "include_dashboard": dashboard}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    threads.wait_asleep()  # an embedded Ray's processes have our environment
    if not address:
        embedded |= surroundings.settled()
    if dashboard and not address:  # `python` is this one for its jobs, whether its environment is activated or not
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with _native_stderr_closed(), _own_answer_to_sigterm(), _free_agent_port():
        try:
            context = ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else embedded),
            )
        except Exception as error:  # Ray raises many kinds where no cluster answers
            reason = str(error).splitlines()[0]
            raise EditTransferError(f"Ray at {address or 'this machine'} does not answer: {reason}") from error
    return context.dashboard_url or None


@contextmanager
def _own_answer_to_sigterm() -> Iterator[None]:
    """Ray makes a driver exit at once on SIGTERM, which is how a job is cancelled; a handler that we have set stays."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(kept) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def _free_agent_port() -> Iterator[None]:
    """What takes jobs on a machine listens on port 52365, and `ray.init` cannot be told another: where a second Ray
    found it taken, it would take no jobs."""
    from ray._private import parameter

    usual: Any = parameter.RayParams
    parameter.RayParams = partial(usual, dashboard_agent_listen_port=0)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        parameter.RayParams = usual  # type: ignore[misc]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Ray's C++ core announces its log level on file descriptor 2, past every Python setting."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
