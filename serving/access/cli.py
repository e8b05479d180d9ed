"""`edit-transfer keys`: who may use the endpoint."""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serving.access import Key

keys_app = typer.Typer(
    help="Keys of the endpoint: create, list, revoke.\n\n"
    "Without any key the endpoint answers this machine only. Once one was created, every request needs one.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Scope(StrEnum):
    """What a key may be for."""

    transfer = "transfer"
    jobs = "jobs"
    admin = "admin"


Serving = Annotated[
    str | None,
    typer.Option(
        "--serving",
        metavar="URI",
        help="Where the endpoint keeps its keys: a folder or s3:// address. Default: EDIT_TRANSFER_SERVING or"
        " ~/.edit-transfer/serving.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(keys_app, name="keys", rich_help_panel="The endpoint")


@keys_app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is; several keys may have the same name.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="transfer: edit images; jobs: submit jobs; admin: all, and everybody's jobs. Repeatable."),
    ],
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Requests per minute. Default: any number.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Requests at the same time. Default: any number.")
    ] = None,
    serving: Serving = None,
    as_json: Json = False,
) -> None:
    """Create a key and show it, once: only its hash is stored.

    With it comes the secret that its webhooks are signed with. Limits count in each process that serves.
    """
    from serving.access import keys

    key, token = keys.create(_address(serving), name, [each.value for each in scope], rate, concurrency)
    if as_json:
        return _print_json(_told(key) | {"key": token, "signing_secret": key.signing_secret})
    typer.echo(f"Key {key.key_id} of {key.name}: {token}\nIts webhooks are signed with: {key.signing_secret}")
    typer.echo("Keep both now; the key is not shown again.", err=True)


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a key, as in et_ID_SECRET.")],
    serving: Serving = None,
    as_json: Json = False,
) -> None:
    """Refuse a key from now on, for ever; endpoints that run follow within seconds."""
    from serving.access import keys

    key = keys.revoke(_address(serving), key_id)
    _print_json(_told(key)) if as_json else typer.echo(f"The key {key.key_id} of {key.name} is revoked.")


@keys_app.command("list")
def list_(serving: Serving = None, as_json: Json = False) -> None:
    """List all keys, the revoked ones among them."""
    from serving.access import keys

    where = _address(serving)
    rows = [_told(key) for key in keys.listed(where)]
    if as_json:
        return _print_json(rows)
    for row in rows:
        typer.echo(_shown(row))
    if not rows:
        typer.echo(f"No keys in {where} yet.")


def _address(serving: str | None) -> str:
    from infra.settings import expanded, from_environment

    return expanded(serving) if serving else from_environment().serving


def _told(key: "Key") -> dict[str, Any]:
    """A key without its secrets."""
    secret = ("secret_sha256", "signing_secret")
    return {name: value for name, value in asdict(key).items() if name not in secret}


def _shown(row: dict[str, Any]) -> str:
    limits = [f"{row[name]} {said}" for name, said in (("rate", "a minute"), ("concurrency", "at a time")) if row[name]]
    state = f"revoked {row['revoked_at'][:19]}" if row["revoked_at"] else f"since {row['created_at'][:19]}"
    return f"{row['key_id']}  {row['name']}: {', '.join([*row['scopes'], *limits])}; {state}"


def _print_json(outcome: Any) -> None:
    typer.echo(json.dumps(outcome))
