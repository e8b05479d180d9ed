"""The endpoint from its start to its end, on an embedded Ray or on a cluster."""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from infra import cluster
from infra.errors import EditTransferError, UsageError
from infra.settings import Settings
from serving.access import keys
from serving.app.limits import is_loopback
from serving.app.options import Options

NAME, IMPORT_PATH = "edit-transfer", "serving.app:build_from"
CPUS_FOR_JOBS = 4  # logical, of an embedded Ray: jobs that are asked for over HTTP run beside the engines
Say = Callable[[str], None]


def serve(options: Options, host: str, port: int, settings: Settings, say: Say) -> None:
    """Run the endpoint until Ctrl-C or SIGTERM; then finish what is under way.

    Raises UsageError if it may not answer there, or cannot, and EditTransferError if it does not start.
    """
    keyed = bool(keys.directory(options.serving or settings.serving))
    _check_place(host, port, keyed, settings)
    jobs = bool(options.job_prefixes)
    cpus = (options.max_replicas or options.replicas) * options.cpus + CPUS_FOR_JOBS * jobs
    asked = _asked_to_end()
    say("Loading the base…")
    with cluster.speaking_aside(), cluster.connected(cpus, settings.ray, dashboard=jobs) as resources:
        try:
            _start(options.model_copy(update={"jobs": options.jobs or resources.dashboard}), host, port)
            say(welcome(host, port, keyed))
            asked.wait()
            say("Finishing what is under way.")
        finally:
            _end()


def configuration(options: Options, host: str, port: int) -> dict[str, Any]:
    """What `serve deploy` takes."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": options.model_dump(mode="json", exclude_defaults=True),
            }
        ],
    }


def welcome(host: str, port: int, keyed: bool) -> str:
    """What is said once it answers."""
    url = f"http://{'localhost' if is_loopback(host) or host == '0.0.0.0' else host}:{port}"
    key = ' -H "Authorization: Bearer $EDIT_TRANSFER_KEY"' if keyed else ""
    return (
        f"Serving at {url}, with documentation at {url}/docs. Ctrl-C ends it.\n"
        f"  curl{key} {url}/v1/models\n"
        f"  curl{key} {url}/v1/transfers -F before=@before.png -F after=@after.png -F query=@photo.jpg -o edited.jpg"
    )


def _asked_to_end() -> threading.Event:
    """Set by Ctrl-C or SIGTERM; a second one ends at once."""
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked


def _start(options: Options, host: str, port: int) -> None:
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serving.app import build

    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
    try:
        serve.run(build(options), name=NAME, route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        raise EditTransferError(f"The endpoint did not start: {_reason() or error}") from None


def _reason() -> str | None:
    """The last line of what a deployment that failed says of it."""
    from ray import serve

    application = serve.status().applications.get(NAME)
    told = [each.message for each in application.deployments.values() if each.message] if application else []
    lines = [line.strip() for line in "\n".join(told).splitlines()]
    return next((line for line in reversed(lines) if "Error:" in line or "NotFound:" in line), None)


def _end() -> None:
    """Replicas answer what they have before they end. What else a cluster serves goes on."""
    from ray import serve

    serve.delete(NAME)


def _check_place(host: str, port: int, keyed: bool, settings: Settings) -> None:
    if not is_loopback(host) and not keyed:
        raise UsageError(
            f"{host} can be reached by others, and there are no keys. Make one with `edit-transfer keys create`, or"
            " leave out --host."
        )
    if settings.ray is not None:
        return  # the port is one of the cluster's machines
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(f"Port {port} of {host} cannot be used ({error.strerror}). Try another --port.") from None
