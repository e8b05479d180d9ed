"""What no request gets past, whatever its route: size, time, number, and who may call where no keys are asked for."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.errors import EditTransferError, Forbidden, StoreUnavailable, TooLarge, TooMany, TooSlow
from serving.access import Gate
from serving.app.options import Limits

CROWDED = "More requests are open than this endpoint takes. Try again in a moment."
OPEN_TO_ALL = ("/healthz", "/readyz")  # probes come from elsewhere, without keys


class Guard:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, limits: Limits, gate: Gate, answer: Callable[[Exception], Response]) -> None:
        self.app, self.limits, self.gate, self.answer = app, limits, gate, answer
        self.open = self.open_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.open += 1
        taken = [0]
        try:
            await self._check(scope)
            await self.app(scope, self._limited(receive, taken), send)
        except EditTransferError as error:
            response = self.answer(error)
            response.headers["Connection"] = "close"  # what is still being sent is not read
            await response(scope, receive, send)
        finally:
            self.open -= 1
            self.open_bytes -= taken[0]

    async def _check(self, scope: Scope) -> None:
        headers, open_to_all = Headers(scope=scope), _route(scope) in OPEN_TO_ALL
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            raise self._too_large()
        if self.open > self.limits.open and not open_to_all:
            raise TooMany(CROWDED)
        if not open_to_all and not _from_here(scope, headers):
            await self._check_keyed()

    async def _check_keyed(self) -> None:
        try:
            if await self.gate.required():
                return
        except StoreUnavailable:
            return  # the route's own gate tells
        raise Forbidden(
            "Without keys this endpoint answers only to this machine, under the name localhost. Make a key with"
            " `edit-transfer keys create`, and send it as a bearer token."
        )

    def _limited(self, receive: Receive, taken: list[int]) -> Receive:
        """The request's messages; `taken[0]` counts the bytes that they had."""
        deadline, whole = asyncio.get_running_loop().time() + self.limits.upload_seconds, False

        async def limited() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise TooSlow(
                    f"The request did not arrive within {self.limits.upload_seconds:g} seconds. Send it again, or send"
                    " smaller images."
                ) from None
            more = len(message.get("body", b""))
            taken[0] += more
            self.open_bytes += more
            whole = not message.get("more_body", False)
            if taken[0] > self.limits.body_bytes:
                raise self._too_large()
            if self.open_bytes > self.limits.open_bytes:
                raise TooMany(CROWDED)
            return message

        return limited

    def _too_large(self) -> TooLarge:
        mebibytes = self.limits.body_bytes / 2**20
        return TooLarge(f"The request has more than {mebibytes:g} MiB, the most that is taken. Send smaller images.")


def _route(scope: Scope) -> str:
    """The path below the prefix at which Serve has put the application."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _from_here(scope: Scope, headers: Headers) -> bool:
    """Called from this machine, under one of its names: a page in a browser that rebinds its own name is not."""
    host = headers.get("host", "").strip().lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    client = scope.get("client")
    return is_loopback(name) and client is not None and is_loopback(client[0])


def is_loopback(name: str) -> bool:
    """Whether a host of this name, or at this address, is this machine and nobody else can call it."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
