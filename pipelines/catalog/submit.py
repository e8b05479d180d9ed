"""`edit-transfer submit`: the command `apply`, run by a Ray cluster as one of its jobs.

The options are those of `apply` itself, read by its parser; `asking.py` makes a job of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.deploy import environment
from infra.errors import EXIT_INTERRUPTED, UsageError
from infra.jobs.cli import Address, cluster_at, tell
from infra.options import with_options_of
from pipelines.catalog import asking
from pipelines.catalog.cli import PairCommand, apply

if TYPE_CHECKING:
    from infra.jobs import Jobs

CLUSTER = "The cluster"
MEBIBYTE = 2**20


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("submit", cls=PairCommand, rich_help_panel="Jobs on a cluster")(submit)


@with_options_of(apply, without=("queue",))
def submit(
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
    queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="Let the job wait while another one works in the output folder: its `apply --wait`.",
            rich_help_panel="The run",
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

    if asked["plan"]:
        raise UsageError("--plan is no job. Run `edit-transfer apply --plan` where the GPU is, or with --memory.")
    jobs, job_id = cluster_at(address), new_job_id()
    seen = asking.seen_from_nodes(asked | {"queue": queue, "yes": True}, job_id)
    if local := asking.local_places(seen):
        _aside(f"All nodes of the cluster must see {', '.join(local)}")
    with asking.environment_for(with_dependencies) as wanted:
        _aside(_told(Path(wanted["working_dir"]), wanted.get("pip", ()), jobs.address))
        jobs.submit(asking.command_for(seen), job_id, wanted)
    typer.echo(job_id)
    if wait:
        raise typer.Exit(_followed(jobs, job_id))
    _aside(f"To see what it does: edit-transfer jobs logs {job_id} --follow --address {jobs.address}")


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
