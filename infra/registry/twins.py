"""Twins: on which other bases adapters may be used, beside the one that they were trained on.

A distilled base takes few steps and is no good to train on; an adapter is trained on what it was distilled from. Which
base is whose twin is declared for a whole registry, one object for each: <registry>/_twins/<trained>.<deployed>.json
"""

from dataclasses import asdict, dataclass
from typing import Any

from infra import store
from infra.errors import AdapterDamaged, NotInStore, RegistryError
from infra.registry import document, layout


@dataclass(frozen=True)
class BaseRef:
    """A base: its name, which is only told, and the digest of its content."""

    name: str
    revision: str


@dataclass(frozen=True)
class Twin:
    """Adapters trained on `trained` may be used on `deployed`, and not the other way round."""

    trained: BaseRef
    deployed: BaseRef
    by: str
    at: str


def declare(registry: str, trained: BaseRef, deployed: BaseRef) -> Twin:
    """Let adapters of one base be used on another from now on. Declared again, it is as it was declared last.

    Raises RegistryError for a base that would be its own twin, StoreError where nothing can be written.
    """
    if trained.revision == deployed.revision:
        raise RegistryError(f"{trained.name} and {deployed.name} are the same base, which needs no twin of itself.")
    twin = Twin(trained, deployed, document.me(), document.now().isoformat(timespec="milliseconds"))
    store.write(layout.twin_uri(registry, trained.revision, deployed.revision), document.encoded(asdict(twin)))
    return twin


def withdraw(registry: str, trained: str, deployed: str) -> None:
    """Take that back, for bases of these revisions. Raises RegistryError if it was never declared."""
    if not are_twins(registry, trained, deployed):
        raise RegistryError(
            f"In {registry} base {deployed[:12]} is no twin of {trained[:12]}; see `edit-transfer bases list`."
        )
    store.delete(layout.twin_uri(registry, trained, deployed))


def are_twins(registry: str, trained: str, deployed: str) -> bool:
    """Whether adapters trained on the base of one revision may be used on that of the other. Raises StoreError."""
    return store.stat(layout.twin_uri(registry, trained, deployed)) is not None


def twins(registry: str) -> list[Twin]:
    """All that were declared. Raises AdapterDamaged for what was not written here."""
    found = (_read(entry.uri) for _, entry in layout.below(layout.twins_uri(registry)))
    return sorted((twin for twin in found if twin), key=lambda twin: twin.at)


def _read(uri: str) -> Twin | None:
    """None for one that was withdrawn since it was listed."""
    try:
        told = document.read(uri)
        return Twin(_base(told["trained"]), _base(told["deployed"]), str(told["by"]), str(told["at"]))
    except NotInStore:
        return None
    except (KeyError, TypeError):
        raise AdapterDamaged(f"{uri}: this is not what was written there; declare the twin again.") from None


def _base(told: dict[str, Any]) -> BaseRef:
    return BaseRef(str(told["name"]), str(told["revision"]))
