"""`edit-transfer serve`, and `serve-config` for clusters. Nothing heavy is imported before it is really asked for."""

import signal
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.errors import EditTransferError, UsageError

if TYPE_CHECKING:
    from serving.app.options import Options

PANEL = "On demand"
EDIT, TRAFFIC, JOBS = "The edit", "The traffic", "Jobs over HTTP"
NAME, IMPORT_PATH = "edit-transfer", "serving.app:build_from"
JOBS_BESIDE = 4  # logical CPUs of an embedded Ray for the ingress, and for jobs that are asked for over HTTP


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("serve", rich_help_panel=PANEL)(serve)
    app.command("serve-config", rich_help_panel=PANEL)(serve_config)


Base = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|ID", help="Default: EDIT_TRANSFER_BASE or bundled.", rich_help_panel=EDIT),
]
Registry = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Default: EDIT_TRANSFER_REGISTRY.", rich_help_panel=EDIT),
]
Host = Annotated[str, typer.Option(help="Address to listen on. Others than this machine's own need keys first.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Replicas = Annotated[
    int, typer.Option(min=1, help="Engines: one for every GPU that is to serve.", rich_help_panel=TRAFFIC)
]
MaxReplicas = Annotated[
    int | None,
    typer.Option(min=1, help="More than --replicas: so many where the traffic asks for it.", rich_help_panel=TRAFFIC),
]
MaxBatch = Annotated[
    int, typer.Option(min=1, help="Requests that share the steps of one engine.", rich_help_panel=TRAFFIC)
]
JobPrefix = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URI",
        help="A folder or s3:// prefix that jobs may read and write. Repeatable; without any, /v1/jobs refuses.",
        rich_help_panel=JOBS,
    ),
]
Webhook = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Where webhooks may go: URLs that begin like this.", rich_help_panel=JOBS),
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    base: Base = None,
    registry: Registry = None,
    replicas: Replicas = 1,
    max_replicas: MaxReplicas = None,
    max_batch: MaxBatch = 8,
    job_prefix: JobPrefix = None,
    webhook: Webhook = None,
) -> None:
    """Edit images on demand, over HTTP: OpenAI's client works, and so does curl.

    Adapters come from the registry: what is promoted there reaches the traffic within seconds. Stop it with Ctrl-C, or
    SIGTERM: what is under way is finished. Without keys (`edit-transfer keys create`) it answers this machine only.
    """
    from rich.console import Console

    from infra import cluster
    from infra.settings import from_environment

    options = _options(base, registry, replicas, max_replicas, max_batch, job_prefix, webhook)
    _check_host(host)
    console = Console(stderr=True)
    cpus = JOBS_BESIDE + (max_replicas or replicas) * options.cpus
    with (
        console.status("Starting Ray and the endpoint"),
        cluster.speaking_aside(),
    ):
        connection = cluster.connected(cpus, from_environment().ray, dashboard=bool(job_prefix))
        resources = connection.__enter__()
        _start(options.model_copy(update={"jobs": resources.dashboard}), host, port)
    try:
        _tell(console, host, port)
        _wait()
        console.print("Finishing what is under way.")
    finally:
        _end()
        connection.__exit__(None, None, None)


def serve_config(
    host: Host = "0.0.0.0",
    port: Port = 8000,
    base: Base = None,
    registry: Registry = None,
    replicas: Replicas = 1,
    max_replicas: MaxReplicas = None,
    max_batch: MaxBatch = 8,
    job_prefix: JobPrefix = None,
    webhook: Webhook = None,
) -> None:
    """Print the same endpoint as a configuration for a cluster: `edit-transfer serve-config > serve.yaml`, then
    `serve deploy serve.yaml`, or as `serveConfigV2` of a RayService."""
    import yaml

    options = _options(base, registry, replicas, max_replicas, max_batch, job_prefix, webhook)
    document = {
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": options.model_dump(exclude_defaults=True),
            }
        ],
    }
    typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


def _options(
    base: str | None,
    registry: str | None,
    replicas: int,
    max_replicas: int | None,
    max_batch: int,
    job_prefix: list[str] | None,
    webhook: list[str] | None,
) -> "Options":
    from infra.deploy.environment import base_place
    from infra.settings import expanded
    from serving.app.options import Options

    return Options(
        base=base_place(base) if base else None,
        registry=expanded(registry) if registry else None,
        replicas=replicas,
        max_replicas=max_replicas,
        engine_options={"max_batch": max_batch},
        ongoing=4 * max_batch,
        job_prefixes=tuple(expanded(prefix) for prefix in job_prefix or ()),
        webhooks=tuple(webhook or ()),
    )


def _check_host(host: str) -> None:
    """Raise UsageError for an address that others can reach while everybody would be let in."""
    from infra.settings import from_environment
    from serving.access import keys

    if not _is_loopback(host) and not keys.directory(from_environment().serving):
        raise UsageError(
            f"Nobody would need a key at {host}. Make one first with `edit-transfer keys create`, or listen on"
            " 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _start(options: "Options", host: str, port: int) -> None:
    from ray import serve as ray_serve

    from serving.app import build

    try:
        ray_serve.start(http_options={"host": host, "port": port})
        ray_serve.run(build(options), name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise EditTransferError(f"The endpoint could not be started: {str(error).strip().splitlines()[-1]}") from error


def _tell(console: Any, host: str, port: int) -> None:
    here = f"http://{'localhost' if _is_loopback(host) else host}:{port}"
    console.print(f"Serving on {here}    documentation: {here}/docs    Ctrl-C stops it.")
    console.print("Try it with a pair and a photo of yours:")
    console.print(
        f"  curl {here}/v1/transfers -F before=@before.png -F after=@after.png -F query=@photo.png -o edited.png",
        soft_wrap=True,
        highlight=False,
    )


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(1):
        pass


def _end() -> None:
    from ray import serve as ray_serve

    ray_serve.shutdown()
