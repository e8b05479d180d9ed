"""The FastAPI application: routes, errors, limits."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from infra.errors import EditTransferError
from serving.app.failures import ANSWERS
from serving.app.limits import Guard
from serving.app.metrics import Counted
from serving.app.routes import adapters, health, images, models, transfers
from serving.app.services import Services
from serving.jobs import jobs_router

ABOUT = """Show one before/after pair, and an image is edited the same way.

Edit an image the way one pair shows:

    curl http://localhost:8000/v1/transfers -F before=@before.png -F after=@after.png -F query=@photo.jpg -o edited.jpg

With an adapter from the registry, through OpenAI's own client:

    from openai import OpenAI

    client = OpenAI(base_url="http://localhost:8000/v1", api_key="et_...")
    answer = client.images.edit(model="lift-arms@production", image=open("photo.jpg", "rb"), prompt="")

Where keys were made (`edit-transfer keys create`), send one: `Authorization: Bearer et_...`.
"""


def application(services: Services) -> FastAPI:
    """The application over these services."""
    about: dict[str, Any] = {"title": "Edit Transfer", "version": version("edit-transfer"), "description": ABOUT}
    app = FastAPIOffline(redoc_url=None, **about)  # pages that need no other server

    async def failed(request: Request, error: Exception) -> Response:
        return services.failures.answer(error)

    for kind in (EditTransferError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, failed)
    for module in (images, transfers, models, adapters, health):
        app.include_router(module.router(services))
    app.include_router(jobs_router(services.jobs, services.gate, services.webhooks, responses=ANSWERS))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    app.add_middleware(_Unexpected, failures=services.failures)
    app.add_middleware(Guard, limits=services.limits, gate=services.gate, answer=services.failures.answer)
    app.add_middleware(Counted, metrics=services.metrics)
    return app


class _Unexpected:
    """Starlette answers an unexpected error, and raises it again: Serve would log all of it, and then answer too."""

    def __init__(self, app: Any, failures: Any) -> None:
        self.app, self.failures = app, failures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        began = False

        async def noted(message: Any) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except EditTransferError:
            raise
        except Exception as error:
            if began:
                raise
            await self.failures.answer(error)(scope, receive, send)
