"""Parts of answers and of the OpenAPI document that several routes share."""

from typing import Any

from pydantic import BaseModel


class AdapterFacts(BaseModel):
    """The adapter that was worn: one immutable version."""

    name: str
    version: int
    digest: str
    scale: float


class BaseFacts(BaseModel):
    """The base that runs here."""

    name: str
    revision: str


def multipart(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """How the OpenAPI document describes a form that the route itself reads."""
    return _body({"multipart/form-data": _object(fields, required)})


def multipart_or_json(
    fields: dict[str, Any], required: list[str], json_fields: dict[str, Any], json_required: list[str]
) -> dict[str, Any]:
    """The same for a route that takes JSON too."""
    return _body(
        {
            "multipart/form-data": _object(fields, required),
            "application/json": _object(json_fields, json_required),
        }
    )


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": it} for kind, it in content.items()}}}


def _object(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required}
