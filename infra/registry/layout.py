"""Where everything in a registry lies, and what names and refs look like. No other module spells an address.

<registry>/<name>/versions/000003/{claim.json, adapter.json, adapter.safetensors, pairs/…, card.md, samples.png,
                                   prompt.safetensors}       # the last if it has a text
<registry>/<name>/aliases/production/000007.json
<registry>/<name>/leases/<purpose>/000012.json
<registry>/_twins/<revision trained on>.<revision deployed on>.json      # no adapter's name begins with _
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from infra import store
from infra.errors import RegistryError
from infra.store import Stored

PRODUCTION = "production"  # the alias that a bare name means
CLAIM, ADAPTER, DELETED = "claim.json", "adapter.json", "deleted.json"
WEIGHTS, CARD = "adapter.safetensors", "card.md"
PROMPT = "prompt.safetensors"  # the text that goes with an adapter, if it has one

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9A-Za-z]{1,128}")
_RULE = "use small letters, digits, dots, dashes and underscores, 64 at most, a letter or digit first"


def checked_name(name: str) -> str:
    """The name of an adapter, as it is. Raises RegistryError if it cannot be one."""
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{name!r} cannot be the name of an adapter: {_RULE}.")
    return name


def checked_alias(alias: str) -> str:
    """An alias, or the purpose of a lease, as it is. Raises RegistryError if it cannot be one."""
    if not _NAME.fullmatch(alias) or alias.isdecimal():
        raise RegistryError(f"{alias!r} cannot be an alias: {_RULE}, and not digits alone.")
    return alias


def checked_path(path: str) -> str:
    """The path of a file inside a version, as it is. Raises RegistryError if it leads elsewhere or is taken."""
    parts = path.split("/")
    if path in (CLAIM, ADAPTER, DELETED) or "\\" in path or any(not part or part.startswith(".") for part in parts):
        raise RegistryError(f"{path!r} cannot be a file of an adapter: use a plain relative path.")
    return path


def parsed(ref: str) -> tuple[str, int | None, str | None]:
    """Name, number and alias of `name`, `name@3` or `name@production`. Raises RegistryError for anything else."""
    name, at, which = ref.partition("@")
    checked_name(name)
    if not at:
        return name, None, None
    if which.isascii() and which.isdecimal():
        return name, int(which), None
    return name, None, checked_alias(which)


def name_uri(registry: str, name: str) -> str:
    """All there is of one adapter."""
    return store.join(registry, checked_name(name))


def versions_uri(registry: str, name: str) -> str:
    """All versions of one adapter."""
    return store.join(name_uri(registry, name), "versions")


def version_uri(registry: str, name: str, number: int) -> str:
    """One version."""
    return store.join(versions_uri(registry, name), f"{number:06d}")


def aliases_uri(registry: str, name: str) -> str:
    """All aliases of one adapter."""
    return store.join(name_uri(registry, name), "aliases")


def alias_uri(registry: str, name: str, alias: str) -> str:
    """The log of one alias."""
    return store.join(aliases_uri(registry, name), checked_alias(alias))


def leases_uri(registry: str, name: str) -> str:
    """All leases on one adapter."""
    return store.join(name_uri(registry, name), "leases")


def lease_uri(registry: str, name: str, purpose: str) -> str:
    """The log of one lease."""
    return store.join(leases_uri(registry, name), checked_alias(purpose))


def twins_uri(registry: str) -> str:
    """All declared twins of bases."""
    return store.join(registry, "_twins")


def twin_uri(registry: str, trained: str, deployed: str) -> str:
    """One twin, by the revisions of both bases. Raises RegistryError for what cannot be one."""
    for revision in (trained, deployed):
        if not _REVISION.fullmatch(revision):
            raise RegistryError(f"{revision!r} cannot be the revision of a base.")
    return store.join(twins_uri(registry), f"{trained}.{deployed}.json")


def below(uri: str) -> Iterator[tuple[PurePosixPath, Stored]]:
    """Every object below an address, with its path from there."""
    start = str(store.local_path(uri)) if store.scheme_of(uri) == "file" else uri.rstrip("/")
    for found in store.list_objects(uri):
        yield PurePosixPath(found.uri.removeprefix(start).lstrip("/")), found
