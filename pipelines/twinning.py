"""`edit-transfer bases`: which base is the twin of which, so that adapters of one may be used on the other."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.registry.cli import Json, Registry, address

if TYPE_CHECKING:
    from infra.registry import BaseRef

bases_app = typer.Typer(
    help="Bases and their twins: an adapter trained on one base may be used on a distilled twin of it.\n\n"
    "An adapter is tied to the base that it was trained on. A registry may be told that another base, distilled from "
    "that one, takes its adapters too.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Trained = Annotated[
    str,
    typer.Argument(metavar="TRAINED", help="The base that adapters are trained on: a diffusers folder or a Hub id."),
]
Distilled = Annotated[
    str, typer.Argument(metavar="DISTILLED", help="The base that they shall be used on: its distilled twin.")
]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(bases_app, name="bases", rich_help_panel="Adapters")


@bases_app.command()
def twin(trained: Trained, distilled: Distilled, registry: Registry = None, as_json: Json = False) -> None:
    """Let adapters trained on one base be used on its distilled twin: by apply, the endpoint and jobs alike.

    Both must have the same layers. How well an adapter carries over is not known from that: look at results, or run
    `edit-transfer evaluate --adapter` on both.
    """
    from infra import registry as registries

    _check_alike(trained, distilled)
    declared = registries.declare(address(registry), _ref(trained), _ref(distilled))
    told = f"Adapters trained on {declared.trained.name} may now be used on {declared.deployed.name}."
    typer.echo(json.dumps(asdict(declared)) if as_json else told)


@bases_app.command()
def untwin(trained: Trained, distilled: Distilled, registry: Registry = None, as_json: Json = False) -> None:
    """Take that back. A base is named as for `twin`, or by its revision, as `list --json` shows it."""
    from infra import registry as registries

    revisions = _revision(trained), _revision(distilled)
    registries.withdraw(address(registry), *revisions)
    told = f"Adapters trained on {trained} may no longer be used on {distilled}."
    outcome = {"trained": revisions[0], "deployed": revisions[1], "withdrawn": True}
    typer.echo(json.dumps(outcome) if as_json else told)


@bases_app.command("list")
def list_(registry: Registry = None, as_json: Json = False) -> None:
    """List the twins that were declared."""
    from infra import registry as registries
    from infra.registry import tables

    where = address(registry)
    found = registries.twins(where)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    rows = [
        {"trained on": _told(each.trained), "used on": _told(each.deployed), "at": each.at, "by": each.by}
        for each in found
    ]
    tables.show_rows(rows, f"No twins in {where} yet.")


def _told(base: "BaseRef") -> str:
    return f"{base.name} ({base.revision[:12]})"


def _ref(base: str) -> "BaseRef":
    from infra.registry import BaseRef
    from pipelines.transfer import bases

    return BaseRef(base, bases.revision_of(base))


def _revision(base: str) -> str:
    """Of a base, or the revision itself: the base may be gone."""
    import re

    from pipelines.transfer import bases

    return base if re.fullmatch("[0-9a-f]{64}", base) else bases.revision_of(base)


def _check_alike(trained: str, distilled: str) -> None:
    """Raise UsageError unless an adapter of one fits the other, as far as their configurations tell."""
    from infra.errors import UsageError
    from pipelines.transfer import bases, loading

    folders = [bases.find_base(trained), bases.find_base(distilled)]
    classes = [bases.class_of(folder) for folder in folders]
    if classes[0] != classes[1]:
        raise UsageError(f"{distilled} is no twin of {trained}: one is a {classes[1]}, the other a {classes[0]}.")
    if bases.is_distilled(folders[0]) and not bases.is_distilled(folders[1]):
        raise UsageError(f"{trained} is distilled and {distilled} is not: name the base first that is trained on.")
    shapes = [loading.shapes_of(folder) for folder in folders]
    other = next((name for name in sorted(shapes[0] | shapes[1]) if shapes[0].get(name) != shapes[1].get(name)), None)
    if other:
        raise UsageError(
            f"{distilled} is no twin of {trained}: its layer {other} is {_size(shapes[1].get(other))}, there"
            f" {_size(shapes[0].get(other))}."
        )


def _size(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape)) if shape else "missing"
