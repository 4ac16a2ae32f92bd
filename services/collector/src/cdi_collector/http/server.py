"""uvicorn inside the service's own loop, with the guards that it lacks: a limit on the head, on waiting, and on connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cdi.error.v1 import error_pb2
from cdi_collector.faults import HeadTooLarge, malformed
from cdi_collector.http.app import HttpApp
from cdi_collector.http.responses import rendered
from cdi_collector.settings import Settings
from cdi_kernel.faults import Fault, Unavailable
from cdi_runtime.service import ServiceContext

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together."""

_BACKLOG: Final = 2_048
_REASONS: Final = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol for a port that strangers reach. Subclassed per server by ``_guarded`` with its limits."""

    head_seconds: float
    drain_seconds: float
    max_connections: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: closed at once beyond the limit, otherwise given time for its first head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._in_message = False
        self._guard: asyncio.TimerHandle | None = None
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._watch(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request. A head that is not complete with them is watched, by size and by time."""
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            limit = {"limit": str(MAX_HEAD_BYTES)}
            self._refuse(HeadTooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the head is over {MAX_HEAD_BYTES} bytes", metadata=limit))
        elif self._guard is None:
            self._watch(self.head_seconds)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._head_bytes = 0
        self._unwatch()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._in_message = False
        self._head_bytes = 0
        self._unwatch()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The request is answered. If its body still comes, it is thrown away, for a while."""
        super().on_response_complete()
        if self._in_message and not self.transport.is_closing():
            self._watch(self.drain_seconds)

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, as JSON like every other answer."""
        self._refuse(malformed("this is not an HTTP request"))

    def _refuse(self, fault: Fault) -> None:
        response = rendered(fault)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (response.status, _REASONS[response.status], len(response.body)) + response.body)
        self.transport.close()

    def _watch(self, seconds: float) -> None:
        self._unwatch()
        self._guard = self.loop.call_later(seconds, self.transport.close)

    def _unwatch(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's."""
        yield


@contextlib.asynccontextmanager
async def serve_http(context: ServiceContext, settings: Settings, app: HttpApp) -> AsyncIterator[str]:
    """Serves the application while the block runs and announces the address as ``http``.

    At the end it stops accepting, finishes the requests that have begun, and closes idle connections.

    Yields:
        The bound ``host:port``.

    Raises:
        Unavailable: the address cannot be bound.
    """
    listener = _listen(settings.http_address)
    host = settings.http_address.rpartition(":")[0]
    bound = f"{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        http=_guarded(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds / 2)),
        backlog=_BACKLOG,
    )
    server = _Server(config)
    task = context.spawn(server.serve([listener]), "http")
    context.announce("http", bound)
    try:
        yield bound
    finally:
        server.should_exit = True
        await asyncio.wait([task])


def _guarded(settings: Settings) -> type[GuardedProtocol]:
    limits: dict[str, Any] = {
        "head_seconds": settings.head_seconds,
        "drain_seconds": settings.body_seconds,
        "max_connections": settings.max_connections,
    }
    return type("Guarded", (GuardedProtocol,), limits)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Unavailable("network", f"cannot listen on {address}") from error
    return listener
