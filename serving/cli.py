"""`edit-transfer serve`. Nothing heavy is imported before it is really asked for."""

from typing import Annotated, Any

import typer

from infra.options import with_options_of
from pipelines import tuning

EDIT, TRAFFIC, JOBS = "The edit", "The traffic", "Jobs over HTTP"


def register(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command("serve", rich_help_panel="The endpoint")(serve)


@with_options_of(tuning.options, without=("compile", "step_cache"))
def serve(
    host: Annotated[
        str, typer.Option(help="Address to answer at; any but this machine's own, as 0.0.0.0, needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to answer at.")] = 8000,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|ID",
            help="Pretrained base: a diffusers folder or a Hub id. Default: EDIT_TRANSFER_BASE or bundled.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where adapters are. Default: EDIT_TRANSFER_REGISTRY or ~/.edit-transfer/registry.",
            rich_help_panel=EDIT,
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, help="Engines that always run: one for every GPU.", rich_help_panel=TRAFFIC)
    ] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="Engines that run when there is much to do. Default: no more.", rich_help_panel=TRAFFIC
        ),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Requests that share the denoising steps of one engine.", rich_help_panel=TRAFFIC)
    ] = 8,
    job_prefix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI",
            help="A folder or s3:// prefix that jobs may read and write. Repeatable; without any, /v1/jobs refuses.",
            rich_help_panel=JOBS,
        ),
    ] = None,
    webhook: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Webhooks may go to URLs below this one. Repeatable.", rich_help_panel=JOBS),
    ] = None,
    show_config: Annotated[
        bool,
        typer.Option("--show-config", help="Start nothing: print this as a configuration for `serve deploy`."),
    ] = False,
    **tuned: Any,
) -> None:
    """Edit images on demand, over HTTP, with adapters from the registry or the way inline pairs show.

    OpenAI's client works, and so does curl: `/docs` has examples. What is promoted in the registry counts for
    every request sent after it. Ctrl-C finishes what is under way, and ends.

    Without keys it answers this machine only; `edit-transfer keys create` makes one. RAY_ADDRESS joins a cluster. For
    one that runs for good: `edit-transfer serve --host 0.0.0.0 --show-config > serve.yaml; serve deploy serve.yaml`.
    """
    from infra.deploy.environment import base_place
    from infra.settings import expanded, from_environment
    from serving import running
    from serving.app.options import Options

    options = Options(
        base=base and base_place(base),
        registry=registry and expanded(registry),
        replicas=replicas,
        max_replicas=max_replicas,
        engine_options={"max_batch": max_batch} | ({"tuned": asked} if (asked := _unusual(tuned)) else {}),
        ongoing=max(32, 4 * max_batch),
        job_prefixes=tuple(expanded(prefix) for prefix in job_prefix or ()),
        webhooks=tuple(webhook or ()),
    )
    if show_config:
        import yaml

        typer.echo(yaml.safe_dump(running.configuration(options, host, port), sort_keys=False), nl=False)
        return
    running.serve(options, host, port, from_environment(), lambda text: typer.echo(text, err=True))


def _unusual(tuned: dict[str, Any]) -> dict[str, Any]:
    """What differs from how a base is usually run."""
    return {name: value for name, value in tuned.items() if value != getattr(tuning.PLAIN, name)}
