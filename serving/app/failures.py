"""From an exception to an answer in OpenAI's shape, for every route. What an answer says, anybody may read."""

import logging
import re
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from infra.errors import EditTransferError
from serving.app.replicas import retry_after

log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type"}
STORE_ADDRESS = re.compile(r"\b(?:s3|file|memory)://[^\s,;'\"]+")
LOCAL_PATH = re.compile(r"(?<![\w/:.<])/(?!v1/)[\w.@+-]+(?:/[\w.@+-]+)+/?")


class Failure(BaseModel):
    """What went wrong: `code` is for programs and stays, `message` is for people."""

    message: str
    type: str
    param: str | None
    code: str | None


class FailureAnswer(BaseModel):
    """Every answer that is no success looks like this."""

    error: Failure


class Failures:
    """Makes answers; `private` are addresses that they do not show."""

    def __init__(self, private: Iterable[str] = ()) -> None:
        self._private = sorted({each.rstrip("/") for each in private if each}, key=len, reverse=True)

    def told(self, error: Exception) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        status, message, param, code = self._read(error)
        failure = Failure(message=message, type=_type(status), param=param, code=code)
        return status, FailureAnswer(error=failure).model_dump()

    def answer(self, error: Exception) -> JSONResponse:
        """The response."""
        status, body = self.told(error)
        headers = dict(getattr(error, "headers", None) or {})
        if isinstance(error, EditTransferError) and (seconds := retry_after(error)) is not None:
            headers["Retry-After"] = str(seconds)
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body, status, headers)

    def _read(self, error: Exception) -> tuple[int, str, str | None, str | None]:
        ours = error if isinstance(error, EditTransferError) else error.__cause__
        if isinstance(ours, EditTransferError) and (ours is error or isinstance(error, HTTPException)):
            if type(ours).http_status == 500:
                log.error("A request failed: %s", ours)
            return ours.http_status, self._public(str(ours)), ours.param, ours.code
        if isinstance(error, RequestValidationError):
            return 400, *_first(error), "invalid_request"
        if isinstance(error, HTTPException):
            return error.status_code, str(error.detail), None, CODES.get(error.status_code, "invalid_request")
        log.error("A request failed in a way that nobody thought of", exc_info=error)
        return 500, "Something went wrong here; it was noted. Try again, or tell who runs this.", None, "internal"

    def _public(self, message: str) -> str:
        for address in self._private:
            message = message.replace(address, "the registry")
        return LOCAL_PATH.sub("(a place here)", STORE_ADDRESS.sub("(a place here)", message))


def _type(status: int) -> str:
    return TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _first(error: RequestValidationError) -> tuple[str, str | None]:
    found = error.errors()[0]
    where = ".".join(str(part) for part in found.get("loc", ())[1:])
    return f"{where or 'The request'}: {found.get('msg', 'cannot be understood')}.", where or None


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": FailureAnswer, "description": description}
    for status, description in {
        400: "The request cannot be understood, or asks for something impossible.",
        401: "No key, or none that is valid.",
        403: "The key may not do this; or, without keys, the caller is not on this machine.",
        404: "No such adapter, base or address.",
        408: "The request did not arrive in time.",
        413: "Too many bytes or parts.",
        415: "A content type that is not understood here.",
        422: "An image that cannot be edited; `code` says why.",
        429: "Too many requests; `Retry-After` says when to come back.",
        500: "Something went wrong here.",
        503: "Nothing is there to do it at the moment; `Retry-After` says when to try again.",
        504: "Not done in the time that it was given.",
    }.items()
}
