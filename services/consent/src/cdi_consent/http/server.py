"""The HTTP port: one request per connection. Two paths that people and back offices call do not need a framework.

Deliberately absent: keep-alive, chunked bodies, TLS, which the proxy in front has.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from cdi_consent.http.app import Answer, HttpApp, Request
from cdi_kernel.faults import Unavailable
from cdi_runtime.service import ServiceContext
from cdi_runtime.telemetry import logger

HEAD_BYTES: Final = 16 * 1024
BODY_BYTES: Final = 4 * 1024 * 1024
"""Five thousand of the longest ids are less."""

SECONDS: Final = 30.0
"""Of a whole request."""

CONNECTIONS: Final = 64

log = logger(__name__)


@contextlib.asynccontextmanager
async def serve_http(context: ServiceContext, address: str, app: HttpApp) -> AsyncIterator[str]:
    """Serves the application on ``host:port`` while the block runs, announces it as ``http``, and yields it.

    Raises:
        Unavailable: the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    free = asyncio.Semaphore(CONNECTIONS)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with free, asyncio.timeout(SECONDS):
                writer.write(_rendered(await _answer(app, reader)))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(client, host.strip("[]"), int(port), limit=HEAD_BYTES)
    except OSError as error:
        raise Unavailable("network", f"cannot listen on {address}") from error
    bound = f"{host}:{server.sockets[0].getsockname()[1]}"
    context.announce("http", bound)
    try:
        yield bound
    finally:
        server.close()


async def _answer(app: HttpApp, reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, _, rest = first.partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        return Answer(HTTPStatus.LENGTH_REQUIRED)
    if len(length) > 10 or int(length) > BODY_BYTES:
        return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = await reader.readexactly(int(length))
    try:
        return await app.answer(Request(method, rest.partition(" ")[0], headers, body))
    except Exception as error:
        log.error("http.failed", correlation_id=secrets.token_hex(8), exc_info=error)
        return Answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _rendered(answer: Answer) -> bytes:
    body = answer.body()
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
