"""`GET /v1/adapters`: the read side of the registry."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel

from infra import registry
from infra.errors import AdapterNotFound, RegistryError, about
from infra.registry import Version
from infra.registry.reading import find
from serving.access.http import caller_with
from serving.app.failures import ANSWERS
from serving.app.services import Services

T = TypeVar("T")
TOLD = ("created_at", "base", "attention", "compact", "rank", "edits", "exemplars", "scores")  # of an adapter.json
HIDDEN = ("by",)  # who and on which machine: not for whoever has a key

Name = Annotated[str, Path(max_length=64, description="Name of an adapter.")]


class Names(BaseModel):
    """All adapters with at least one version."""

    adapters: list[str]


class VersionFacts(BaseModel):
    """One immutable version. `about` is what was published of how it came to be and how well it does."""

    name: str
    version: int
    digest: str
    about: dict[str, Any]


class MoveFacts(BaseModel):
    """From `at` on, an alias meant this version."""

    number: int
    version: int
    digest: str
    at: str
    why: str
    rollback: bool


class AdapterAnswer(BaseModel):
    """An adapter: its versions, and what its aliases mean now. `serving` is what the bare name means."""

    name: str
    serving: VersionFacts
    aliases: dict[str, MoveFacts]


class Versions(BaseModel):
    """All versions of an adapter, ascending."""

    name: str
    versions: list[VersionFacts]


class History(BaseModel):
    """Every move of an alias, the oldest first."""

    name: str
    alias: str
    moves: list[MoveFacts]


def router(services: Services) -> APIRouter:
    """The routes."""
    allowed = Depends(caller_with(services.gate))
    routes = APIRouter(prefix="/v1/adapters", tags=["Adapters"], dependencies=[allowed], responses=ANSWERS)

    async def look(question: Callable[..., T], *arguments: object) -> T:
        with about("name"):
            try:
                return await services.desk.directory.look(question, *arguments)
            except RegistryError as error:
                if type(error) is not RegistryError:
                    raise
                raise AdapterNotFound(str(error)) from None  # a name that cannot be one

    @routes.get("", summary="Names of all adapters")
    async def adapters() -> Names:
        return Names(adapters=await services.desk.directory.listed(registry.names))

    @routes.get("/{name}", summary="One adapter, and what its aliases mean")
    async def adapter(name: Name) -> AdapterAnswer:
        return await look(_adapter, name)

    @routes.get("/{name}/versions", summary="All versions of an adapter")
    async def versions(name: Name) -> Versions:
        return Versions(name=name, versions=[_told(each) for each in await look(_versions, name)])

    @routes.get("/{name}/versions/{number}", summary="One version")
    async def version(name: Name, number: Annotated[int, Path(ge=1, le=999_999_999)]) -> VersionFacts:
        return _told(await look(find, name, number))

    @routes.get("/{name}/aliases", summary="What each alias means now")
    async def aliases(name: Name) -> dict[str, MoveFacts]:
        return (await look(_adapter, name)).aliases

    @routes.get("/{name}/aliases/{alias}", summary="Every move of an alias")
    async def history(name: Name, alias: Annotated[str, Path(max_length=64)]) -> History:
        moves = [_move(each) for each in await look(registry.history, name, alias)]
        if not moves:
            raise AdapterNotFound(f"{name} has no alias {alias}.")
        return History(name=name, alias=alias, moves=moves)

    return routes


def _adapter(address: str, name: str) -> AdapterAnswer:
    serving = registry.resolve(address, registry_name(name))
    aliases = {alias: _move(move) for alias, move in registry.aliases(address, name).items()}
    return AdapterAnswer(name=name, serving=_told(serving), aliases=aliases)


def _versions(address: str, name: str) -> list[Version]:
    found = registry.versions(address, registry_name(name))
    if not found:
        raise AdapterNotFound(f"There is no adapter {name}.")
    return found


def registry_name(name: str) -> str:
    """A name without a version or an alias. Raises AdapterNotFound."""
    if "@" in name:
        raise AdapterNotFound(f"{name} is no name: leave out what comes after the @.")
    return name


def _told(version: Version) -> VersionFacts:
    about = {key: version.about[key] for key in TOLD if key in version.about}
    if isinstance(about.get("base"), dict):
        about["base"] = {"revision": about["base"].get("revision")}
    return VersionFacts(name=version.name, version=version.number, digest=version.digest, about=about)


def _move(move: registry.Move) -> MoveFacts:
    return MoveFacts(**{key: value for key, value in asdict(move).items() if key not in HIDDEN})
