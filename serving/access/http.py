"""The gate as a dependency of FastAPI's routes."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serving.access.gate import Caller, Gate

BEARER = HTTPBearer(auto_error=False, description="A key made by `edit-transfer keys create`.")
Documented = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def caller_with(gate: Gate, scope: str | None = None) -> Callable[..., AsyncIterator[Caller]]:
    """A dependency that is the request's Caller, and counts as one of its key's requests until it is answered."""

    async def caller(request: Request, _documented: Documented) -> AsyncIterator[Caller]:
        async with gate.enter(request.headers.get("authorization"), scope) as entered:
            yield entered

    return caller
