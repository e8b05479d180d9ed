"""`edit-transfer submit`: the command `apply`, run by a Ray cluster as one of its jobs.

The options are those of `apply` itself, read by its parser. What they name on this machine's disk cannot be seen
from the cluster: pairs are copied beside the results where those are in a bucket, and every other path is made
absolute, for disks that all machines share.
"""

import inspect
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra import store
from infra.deploy import environment
from infra.errors import EXIT_INTERRUPTED, UsageError
from infra.jobs.cli import Address, cluster_at, tell
from infra.settings import expanded, from_environment
from pipelines.catalog.cli import PairCommand, apply

if TYPE_CHECKING:
    from infra.jobs import Jobs

CLUSTER, PAIR = "The cluster", "--pair"
MEBIBYTE = 2**20
# Parameters of `apply` that name a place, and what makes a local one absolute.
PLACES = {"source": expanded, "output": expanded, "registry": expanded, "base": environment.base_place}


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("submit", cls=PairCommand, rich_help_panel="Jobs on a cluster")(submit)


def with_options_of(command: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of another one, before its own; it gets them as its `**asked`."""

    def extended(own: Callable[..., None]) -> Callable[..., None]:
        added = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in _parameters(command)]
        named = [parameter for parameter in _parameters(own) if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
        context, *rest = (parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in named)
        own.__signature__ = inspect.Signature([context, *added, *rest])  # type: ignore[attr-defined]
        return own

    return extended


def _parameters(command: Callable[..., None]) -> Iterable[inspect.Parameter]:
    return inspect.signature(command).parameters.values()


@with_options_of(apply)
def submit(
    context: typer.Context,
    address: Address = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            "--follow",
            help="Show what the job writes until it ends, and end with its exit code.",
            rich_help_panel=CLUSTER,
        ),
    ] = False,
    with_dependencies: Annotated[
        bool,
        typer.Option(
            "--with-dependencies",
            help="Let Ray install this project's dependencies for the job, in the versions that are installed here."
            " Without it, the Python of the cluster must have them.",
            rich_help_panel=CLUSTER,
        ),
    ] = False,
    **asked: Any,
) -> None:
    """Edit a catalog on a Ray cluster: `apply` as a job, with the same options.

    This project's source goes along, and the variables that say where things are (AWS_ENDPOINT_URL, AWS_REGION,
    EDIT_TRANSFER_*), but no keys: the nodes must have their own access to the buckets. The id of the job is printed;
    `edit-transfer jobs` shows its state and log, and cancels it. Submit the same command again to go on after a stop.
    """
    from infra.jobs import new_job_id

    jobs, job_id = cluster_at(address), new_job_id()
    command = command_for(context, seen_from_nodes(asked, job_id))
    with environment.source() as folder:
        wanted: dict[str, Any] = environment.runtime_environment(os.environ) | {"working_dir": str(folder)}
        if with_dependencies:
            wanted["pip"] = environment.dependencies()
        _aside(_told(folder, wanted.get("pip", ()), jobs.address))
        jobs.submit(command, job_id, wanted)
    typer.echo(job_id)
    if wait:
        raise typer.Exit(_followed(jobs, job_id))
    _aside(f"To see what it does: edit-transfer jobs logs {job_id} --follow --address {jobs.address}")


def command_for(context: typer.Context, asked: dict[str, Any]) -> str:
    """The shell command that asks `apply` for the same."""
    words = ["python", "-m", "pipelines.catalog", "apply"]
    for option in context.command.params:
        if option.name in asked and asked[option.name] != option.default:
            words += _words(option.opts[0], asked[option.name])
    return shlex.join(words)


def _words(option: str, value: Any) -> list[str]:
    if value is True:
        return [option]
    if option == PAIR:
        return [word for at in range(0, len(value), 2) for word in (option, *value[at : at + 2])]
    values = value if isinstance(value, list) else [value]
    return [word for each in values for word in (option, str(each.value if isinstance(each, Enum) else each))]


def seen_from_nodes(asked: dict[str, Any], job_id: str) -> dict[str, Any]:
    """The options as they mean the same on every machine; local pairs are copied to an output in a bucket.

    Raises UsageError for a place in this process's memory, StoreError if a pair cannot be read or copied.
    """
    seen = asked | {"yes": True}
    if asked["adapter"] and not asked["registry"]:
        seen["registry"] = from_environment().registry
    for name, absolute in PLACES.items():
        if seen[name]:
            seen[name] = absolute(seen[name])
    if asked["pair"] and store.scheme_of(seen["output"]) != "file":
        seen["pair"] = [_copied(uri, seen["output"], job_id, number) for number, uri in enumerate(asked["pair"])]
    elif asked["pair"]:
        seen["pair"] = [expanded(uri) for uri in asked["pair"]]
    _check_places([*(seen[name] for name in PLACES if seen[name]), *(seen["pair"] or ())])
    return seen


def _copied(uri: str, output: str, job_id: str, number: int) -> str:
    if store.scheme_of(uri) != "file":
        return uri
    name = f"{number // 2 + 1}-{'after' if number % 2 else 'before'}{PurePosixPath(uri).suffix.lower()}"
    copy = store.join(output, "jobs", job_id, "pairs", name)
    store.write(copy, store.read(uri))
    return copy


def _check_places(places: list[str]) -> None:
    if volatile := [place for place in places if store.scheme_of(place) == "memory"]:
        raise UsageError(f"{volatile[0]}: a cluster cannot see into the memory of this process; use a folder or s3://.")
    if local := [place for place in places if place.startswith(("/", "file://"))]:
        _aside(f"All nodes of the cluster must see {', '.join(dict.fromkeys(local))}")


def _told(folder: Path, packages: Sequence[str], address: str) -> str:
    mebibytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MEBIBYTE
    also = f", to be installed there: {len(packages)} packages" if packages else ""
    return f"To {address}: the source of {', '.join(environment.PACKAGES)} ({mebibytes:.0f} MiB){also}"


def _followed(jobs: "Jobs", job_id: str) -> int:
    try:
        return jobs.follow(job_id, tell).outcome
    except KeyboardInterrupt:
        _aside(f"\nThe job goes on. To stop it: edit-transfer jobs cancel {job_id} --address {jobs.address}")
        return EXIT_INTERRUPTED


def _aside(text: str) -> None:
    typer.echo(text, err=True)
