"""The HTTP port for operators: ``/livez``, ``/readyz``, ``/metrics``. Three GETs do not need a framework.

Deliberately absent: keep-alive, TLS, bodies. Every answer closes the connection; a request head is read for at most five
seconds and 8 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import orjson

from cdi_runtime.service.context import ServiceContext
from cdi_runtime.telemetry import prometheus_text

_HEAD_LIMIT = 8 * 1024
_HEAD_SECONDS = 5.0
_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]


@contextlib.asynccontextmanager
async def serve_ops(context: ServiceContext, address: str) -> AsyncIterator[str]:
    """Serves the three paths on ``host:port`` while the block runs; yields the bound address."""
    host, _, port = address.rpartition(":")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_render(answer(context, head)))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(client, host.strip("[]"), int(port), limit=_HEAD_LIMIT)
    bound = server.sockets[0].getsockname()[1]
    try:
        yield f"{host}:{bound}"
    finally:
        server.close()


def answer(context: ServiceContext, head: bytes) -> Answer:
    """The answer to one request head."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return HTTPStatus.METHOD_NOT_ALLOWED, _JSON, b"{}"
    route = _ROUTES.get(path)
    if route is None:
        return HTTPStatus.NOT_FOUND, _JSON, b"{}"
    status, kind, body = route(context)
    return status, kind, body if method == "GET" else b""


def _livez(_: ServiceContext) -> Answer:
    return HTTPStatus.OK, _JSON, b"{}"


def _readyz(context: ServiceContext) -> Answer:
    reasons = context.readiness.reasons()
    return HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, _JSON, orjson.dumps(reasons)


def _metrics(_: ServiceContext) -> Answer:
    return HTTPStatus.OK, _PROMETHEUS, prometheus_text()


_ROUTES: dict[str, Callable[[ServiceContext], Answer]] = {"/livez": _livez, "/readyz": _readyz, "/metrics": _metrics}


def _render(result: Answer) -> bytes:
    status, kind, body = result
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
