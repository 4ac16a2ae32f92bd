"""A small HTTP port: one request per connection, for operators and back offices. A few paths do not need a framework, nor its memory.

Deliberately absent: keep-alive, chunked bodies, TLS, which the proxy in front has.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple

from cdi_kernel.faults import Unavailable
from cdi_runtime.telemetry import logger

JSON: Final = "application/json"

log = logger(__name__)


class HttpRequest(NamedTuple):
    """A request of HTTP; names of headers in lower case, ``target`` as it was sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class HttpAnswer(NamedTuple):
    """Its answer."""

    status: HTTPStatus
    body: bytes = b"{}"
    content_type: str = JSON


Answering = Callable[[HttpRequest], Awaitable[HttpAnswer]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a stranger may send.

    Attributes:
        head_bytes: request line and headers.
        body_bytes: the body; 0: a request with one is refused.
        seconds: of a whole request, the answer included.
        connections: that are answered at once; others wait.
    """

    head_bytes: int = 8 * 1024
    body_bytes: int = 0
    seconds: float = 5.0
    connections: int = 64


@contextlib.asynccontextmanager
async def serve_http(address: str, answering: Answering, limits: HttpLimits) -> AsyncIterator[str]:
    """Serves on ``host:port`` while the block runs; yields the bound address.

    Args:
        address: port 0 means any free one.
        answering: a failure of it is logged and answered 500.
        limits: of a request; what breaks them off gets no answer, a body that is too large 413.

    Raises:
        Unavailable: the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    free = asyncio.Semaphore(limits.connections)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with free, asyncio.timeout(limits.seconds):
                writer.write(_rendered(await _answer(answering, reader, limits)))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(client, host.strip("[]"), int(port), limit=limits.head_bytes)
    except OSError as error:
        raise Unavailable("network", f"cannot listen on {address}") from error
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _answer(answering: Answering, reader: asyncio.StreamReader, limits: HttpLimits) -> HttpAnswer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, _, rest = first.partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        return HttpAnswer(HTTPStatus.LENGTH_REQUIRED)
    if len(length) > 10 or int(length) > limits.body_bytes:
        return HttpAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = await reader.readexactly(int(length))
    try:
        return await answering(HttpRequest(method, rest.partition(" ")[0], headers, body))
    except Exception as error:
        log.error("http.failed", correlation_id=secrets.token_hex(8), exc_info=error)
        return HttpAnswer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _rendered(answer: HttpAnswer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + answer.body
