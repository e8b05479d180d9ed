"""`edit-transfer adapters`: look at what was published, and say what a name means. Other packages add to the group."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from infra.registry.layout import CARD, PRODUCTION

adapters_app = typer.Typer(
    help="Published adapters: list, promote, roll back, export.\n\n"
    "A REF names one version: `lift-arms@3` is version 3, `lift-arms@production` what that alias points to, and a bare "
    "`lift-arms` is production, or the newest version where nothing was promoted yet.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Registry = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URI",
        help="A folder or s3:// address. Default: EDIT_TRANSFER_REGISTRY or ~/.edit-transfer/registry.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]
Ref = Annotated[str, typer.Argument(metavar="REF", help="NAME, NAME@3 or NAME@ALIAS.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of an adapter.")]
Alias = Annotated[str, typer.Option("--alias", metavar="ALIAS", help="Which alias.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="A reason, kept in the history.")]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(adapters_app, name="adapters", rich_help_panel="Adapters")


def address(registry: str | None) -> str:
    """The registry that a command is about. Raises SettingError for a bad environment."""
    from infra.settings import expanded, from_environment

    return expanded(registry) if registry else from_environment().registry


@adapters_app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="List the versions of this adapter.")] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """List all adapters, or all versions of one.

    A version whose files are not what was published is listed as damaged.
    """
    from infra.registry import tables

    where = address(registry)
    rows = tables.version_rows(where, name) if name else tables.name_rows(where)
    _print_json(rows) if as_json else tables.show_rows(rows, f"No adapters in {where} yet.")


@adapters_app.command()
def show(ref: Ref, registry: Registry = None, as_json: Json = False) -> None:
    """Show all that is known of one version: base, pairs, scores, files, card.

    Everything is checked against what was published while it is read.
    """
    from infra import registry as registries
    from infra.registry import tables

    where = address(registry)
    version = registries.resolve(where, ref)
    pointing = [
        alias for alias, move in registries.aliases(where, version.name).items() if move.version == version.number
    ]
    card = registries.read_file(version, CARD).decode(errors="replace") if CARD in version.files else None
    if as_json:
        _print_json(version.about | {"uri": version.uri, "aliases": pointing, "card": card})
    else:
        tables.show_version(version, pointing, card)


@adapters_app.command()
def promote(
    ref: Ref,
    to: Annotated[str, typer.Option("--to", metavar="ALIAS", help="Which alias shall point to it.")] = PRODUCTION,
    why: Why = "",
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Let an alias point to this version; who asks for the alias gets it from now on.

    `edit-transfer adapters promote lift-arms@3` makes version 3 production. Take it back with `rollback`.
    """
    from infra import registry as registries

    where = address(registry)
    version = registries.resolve(where, ref)
    move = registries.promote(where, version.name, version.number, to, why)
    _told(move, f"{version.name}@{to} is now version {move.version}.", as_json)


@adapters_app.command()
def rollback(
    name: Name, alias: Alias = PRODUCTION, why: Why = "", registry: Registry = None, as_json: Json = False
) -> None:
    """Let an alias point to what it pointed to before; again, and it is the one before that."""
    from infra import registry as registries

    move = registries.rollback(address(registry), name, alias, why)
    _told(move, f"{name}@{alias} is version {move.version} again.", as_json)


@adapters_app.command()
def history(name: Name, alias: Alias = PRODUCTION, registry: Registry = None, as_json: Json = False) -> None:
    """Show who let an alias point where, when and why; the latest entry rules."""
    from infra import registry as registries
    from infra.registry import tables

    moves = registries.history(address(registry), name, alias)
    rows = [asdict(move) for move in moves]
    _print_json(rows) if as_json else tables.show_history(rows, f"{name}@{alias} was never promoted.")


@adapters_app.command()
def delete(
    ref: Annotated[str, typer.Argument(metavar="NAME@NUMBER", help="The version to delete, by its number.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Delete one version for ever. Refused while an alias points to it; its number is not used again."""
    from infra import registry as registries
    from infra.errors import UsageError
    from infra.registry import layout

    name, number, _ = layout.parsed(ref)
    if number is None:
        raise UsageError(f"{ref} may mean another version tomorrow; say which one to delete: {name}@NUMBER.")
    where = address(registry)
    if not yes:
        typer.confirm(f"Delete {name}@{number} from {where} for ever?", abort=True, err=True)
    registries.delete(where, name, number)
    _told({"name": name, "version": number, "deleted": True}, f"{name}@{number} is deleted.", as_json)


@adapters_app.command()
def gc(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this adapter.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Leave what is younger: it may still be worked on.")
    ] = 24,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Remove what killed commands left behind: files of versions never finished or half deleted, old leases."""
    from infra import registry as registries
    from infra.registry import tables

    found = registries.collect(address(registry), name, timedelta(hours=older_than), dry_run)
    _print_json([asdict(each) for each in found]) if as_json else tables.show_garbage(found, dry_run)


def _told(outcome: Any, sentence: str, as_json: bool) -> None:
    if as_json:
        _print_json(outcome if isinstance(outcome, dict) else asdict(outcome))
    else:
        typer.echo(sentence)


def _print_json(outcome: Any) -> None:
    typer.echo(json.dumps(outcome, ensure_ascii=False))
