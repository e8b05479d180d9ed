"""`GET /v1/models`, in OpenAI's shape: the base, and every adapter with its aliases."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel

from infra import registry
from infra.errors import AdapterNotFound, EditTransferError, NotInStore, RegistryError, StoreError, about
from infra.registry import Version
from serving.access.http import caller_with
from serving.app.failures import ANSWERS
from serving.app.services import Services

OWNER = "edit-transfer"


class Model(BaseModel):
    """A model as OpenAI's clients know it. `id` is what `model` of a request may be."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = OWNER


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


def router(services: Services) -> APIRouter:
    """The routes."""
    allowed = Depends(caller_with(services.gate))
    routes = APIRouter(tags=["OpenAI-compatible"], dependencies=[allowed], responses=ANSWERS)
    base = Model(id=services.desk.base, created=0)

    @routes.get("/v1/models", summary="The base, and all adapters with their aliases")
    async def models() -> Models:
        listed = await services.desk.directory.listed(_models)
        return Models(data=[base, *listed])

    @routes.get("/v1/models/{model:path}", summary="One model")
    async def model(model: Annotated[str, Path(description="As in the list, or `NAME@3`.")]) -> Model:
        if model == base.id:
            return base
        with about("model"):
            try:
                worn = await services.desk.directory.find(model)
            except RegistryError as error:  # a name that cannot be one is not there either
                raise AdapterNotFound(str(error)) from None
        return Model(id=model, created=created(worn.version))

    return routes


def _models(address: str) -> list[Model]:
    return [model for name in registry.names(address) for model in _of(address, name)]


def _of(address: str, name: str) -> Iterator[Model]:
    """The name and its aliases; what cannot be read, or was deleted this moment, is left out."""
    try:
        yield Model(id=name, created=created(registry.resolve(address, name)))
        for alias, move in registry.aliases(address, name).items():
            yield Model(id=f"{name}@{alias}", created=_seconds(move.at))
    except StoreError as error:
        if not isinstance(error, NotInStore):
            raise
    except EditTransferError:
        return


def created(version: Version) -> int:
    """When a version was published, in seconds of Unix; 0 where nobody knows."""
    return _seconds(version.about.get("created_at"))


def _seconds(told: Any) -> int:
    try:
        return int(datetime.fromisoformat(told).timestamp())
    except (TypeError, ValueError):
        return 0
