"""`edit-transfer jobs`: what was submitted to a Ray cluster, and what became of it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from infra.jobs import Job, Jobs

jobs_app = typer.Typer(
    help="Jobs on a Ray cluster: list, status, logs, cancel.\n\n"
    "`edit-transfer submit` starts them; a job is known by the id that it told, as are those of `ray job submit`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The dashboard of the Ray cluster. Default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265.",
        rich_help_panel="The cluster",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(jobs_app, name="jobs", rich_help_panel="Jobs on a cluster")


def cluster_at(address: str | None) -> "Jobs":
    """The jobs of a cluster, by its address or the environment's. Raises UsageError if it does not let us in."""
    from infra import settings
    from infra.jobs import Jobs

    return Jobs(address, settings.from_environment())


@jobs_app.command("list")
def list_(address: Address = None, as_json: Json = False) -> None:
    """List all jobs that the cluster knows, the newest first: id, time of submission in UTC, state, command."""
    found = cluster_at(address).all()
    if as_json:
        return _print_json([asdict(job) for job in found])
    for job in found:
        typer.echo(f"{job.job_id}  {job.submitted_at}  {_state(job)}: {job.command}")
    if not found:
        typer.echo("No jobs yet.")


@jobs_app.command()
def status(job_id: JobId, address: Address = None, as_json: Json = False) -> None:
    """Show the state of a job, for how long it runs or ran, and its last message."""
    job = cluster_at(address).status(job_id)
    if as_json:
        return _print_json(asdict(job))
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    typer.echo(f"{job.job_id}: {_state(job)}{code}")
    if job.message:
        typer.echo(job.message)


@jobs_app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    address: Address = None,
) -> None:
    """Print what a job has written, to stdout and to stderr."""
    jobs = cluster_at(address)
    if follow:
        jobs.follow(job_id, tell)
    else:
        tell(jobs.logs(job_id))


@jobs_app.command()
def cancel(job_id: JobId, address: Address = None) -> None:
    """Stop a job, and wait until it has stopped.

    What it has finished stays finished: submit the same command again to go on.
    """
    jobs = cluster_at(address)
    if jobs.status(job_id).ended:
        return typer.echo(f"{job_id} had ended before: {_state(jobs.status(job_id))}")
    typer.echo(f"{job_id}: {_state(jobs.cancel(job_id))}")


def tell(text: str) -> None:
    """Words of a job, as they come."""
    typer.echo(text, nl=False)


def _state(job: "Job") -> str:
    return f"{job.state} {'after' if job.ended else 'for'} {_long(job.seconds)}"


def _long(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join([f"{number:g} {unit}" for number, unit in parts if number][:2]) or "0 s"


def _print_json(outcome: Any) -> None:
    typer.echo(json.dumps(outcome))
