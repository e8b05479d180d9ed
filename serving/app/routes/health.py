"""`/healthz`, `/readyz` and `/metrics`: for whoever keeps it running."""

import asyncio

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serving.access.http import caller_with
from serving.app.failures import ANSWERS
from serving.app.services import Services

PATIENCE = 2.0  # seconds


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether requests are taken. `registry` says whether it answers, or that what is known goes on being served."""

    ready: bool
    engine: str
    registry: str


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Operation"])

    @routes.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health()

    @routes.get(
        "/readyz",
        responses={503: {"model": Readiness, "description": "No engine answers."}},
        summary="Whether requests are taken",
    )
    async def readyz(response: Response) -> Readiness:
        engine, _ = await asyncio.gather(_engine(services), services.desk.directory.check())
        response.status_code = 200 if engine == "ready" else 503
        trouble = services.desk.directory.trouble
        return Readiness(ready=engine == "ready", engine=engine, registry=trouble or "answers")

    @routes.get(
        "/metrics",
        response_class=Response,
        responses=ANSWERS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[Depends(caller_with(services.gate))],
        summary="Prometheus' text format",
    )
    async def metrics() -> Response:
        text = services.metrics.text(await services.replicas.states(PATIENCE))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


async def _engine(services: Services) -> str:
    try:
        return "ready" if await services.replicas.states(PATIENCE) else "no engine answers"
    except (RayError, RayServeException):
        return "no engine answers"
