"""A proxy between S3 clients and their server that does them wrong: errors, resets, silence, answers that break off.

It forwards what it is sent byte for byte, the signed Host header included, over connections that are kept open. For
each request it draws what happens to it. Errors and silence strike before the request reaches the server; a reset
before or after; an answer breaks off after the server has done what it was asked for.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Iterator, Mapping

REFUSALS = {
    "error": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
}
KINDS = (*REFUSALS, "reset", "stall", "truncate")
FIVE_PERCENT_EACH = dict.fromkeys(("error", "slow_down", "reset", "stall", "truncate"), 0.05)


@contextlib.contextmanager
def faulty(
    environment: Mapping[str, str],
    rates: Mapping[str, float],
    seed: int,
    *,
    stall_seconds: float = 30,
    port: int = 0,
    counts: Counter[str] | None = None,
) -> Iterator[dict[str, str]]:
    """The environment to reach the same server through a proxy, for as long as the block lasts.

    rates          share of requests for each of KINDS; what is left of 1 is forwarded
    stall_seconds  how long the proxy keeps silent before it hangs up
    port           where to listen, 0 for any
    counts         is given how many requests met which kind, and `forwarded`
    """
    assert set(rates) <= set(KINDS) and sum(rates.values()) <= 1
    proxy = _Proxy(environment["AWS_ENDPOINT_URL"], rates, seed, stall_seconds, Counter() if counts is None else counts)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=2**20, backlog=1000))
    thread = threading.Thread(target=loop.run_forever, name="faults", daemon=True)
    thread.start()
    try:
        port = server.sockets[0].getsockname()[1]
        yield {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    finally:
        asyncio.run_coroutine_threadsafe(_closed(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _closed(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _HangUp(Exception):
    pass


class _Proxy:
    def __init__(
        self, endpoint: str, rates: Mapping[str, float], seed: int, stall_seconds: float, counts: Counter[str]
    ) -> None:
        host, _, port = endpoint.removeprefix("http://").rstrip("/").partition(":")
        self.address, self.rates, self.stall_seconds, self.counts = (host, int(port)), rates, stall_seconds, counts
        self.draw = random.Random(seed)

    async def serve(self, client: StreamReader, back: StreamWriter) -> None:
        server, forth = None, None
        try:
            while head := await _head(client):
                if re.search(rb"\r\nexpect: *100-continue", head, re.I):
                    back.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request = head + await _body(client, head)
                fault = self._drawn()
                if fault not in ("forwarded", "truncate") and not (fault == "reset" and self.draw.random() < 0.5):
                    await self._strike(fault, head, back)
                    continue
                if server is None or forth is None:
                    server, forth = await asyncio.open_connection(*self.address, limit=2**20)
                forth.write(request)
                answer_head, answer_body = await _answer(server, head)
                if fault == "reset":
                    _reset(back)
                if fault == "truncate":
                    await self._break_off(answer_head, answer_body, back)
                back.write(answer_head + answer_body)
                await back.drain()
                if re.search(rb"\r\nconnection: *close", answer_head, re.I) or answer_head.startswith(b"HTTP/1.0"):
                    break
        except (_HangUp, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for writer in (back, forth):
                if writer:
                    writer.close()

    def _drawn(self) -> str:
        kinds = [*self.rates, "forwarded"]
        weights = [*self.rates.values(), 1 - sum(self.rates.values())]
        kind = self.draw.choices(kinds, weights)[0]
        self.counts[kind] += 1
        return kind

    async def _strike(self, fault: str, head: bytes, back: StreamWriter) -> None:
        if fault == "reset":
            _reset(back)
        if fault == "stall":
            await asyncio.sleep(self.stall_seconds)
            raise _HangUp
        status, code = REFUSALS[fault]
        body = b"" if head.startswith(b"HEAD ") else b"<Error><Code>%s</Code><Message/></Error>" % code.encode()
        back.write(b"HTTP/1.1 %d Fault\r\nContent-Type: application/xml\r\n" % status)
        back.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await back.drain()

    async def _break_off(self, head: bytes, body: bytes, back: StreamWriter) -> None:
        """Less than half of the body and the end of the connection; nothing at all where there is no body."""
        if body:
            back.write(head + body[: self.draw.randrange((len(body) + 1) // 2)])
            await back.drain()
        raise _HangUp


def _reset(back: StreamWriter) -> None:
    """Not a polite end of the connection: an RST."""
    back.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    back.transport.abort()
    raise _HangUp


async def _head(reader: StreamReader) -> bytes:
    """A request line or status line with its headers; nothing at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""


async def _body(reader: StreamReader, head: bytes) -> bytes:
    """What follows the headers, as it is sent: chunks stay chunks."""
    if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.I):
        return await _chunks(reader)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
    return await reader.readexactly(int(length[1])) if length else b""


async def _chunks(reader: StreamReader) -> bytes:
    sent = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        sent += size
        if int(size.split(b";")[0], 16) == 0:
            break
        sent += await reader.readexactly(int(size.split(b";")[0], 16) + 2)
    while True:  # trailers, up to the empty line
        line = await reader.readuntil(b"\r\n")
        sent += line
        if line == b"\r\n":
            return sent


async def _answer(server: StreamReader, request: bytes) -> tuple[bytes, bytes]:
    """Headers and body of the final answer; `100 Continue` is left out, it has been said already."""
    while True:
        head = await _head(server)
        if not head:
            raise _HangUp
        status = int(head.split(b" ", 2)[1])
        if status >= 200:
            break
    bodiless = request.startswith(b"HEAD ") or status in (204, 304)
    return head, b"" if bodiless else await _body(server, head)
