"""The HTTP server inside the service's own loop: it listens, keeps the time for its connections, and ends them in peace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Final

from cdi_collector.http.app import HttpApp
from cdi_collector.http.connection import Connection, ServerState
from cdi_collector.settings import Settings
from cdi_kernel.faults import Unavailable
from cdi_runtime.service import ServiceContext

_BACKLOG: Final = 2_048
_TICK_SECONDS: Final = 0.25


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
    state = ServerState(app, settings.head_seconds, settings.body_seconds, settings.keep_alive_seconds, settings.max_connections, _date())
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), sock=listener, backlog=_BACKLOG)
    async with context.background(_keep_time(state), "http"):
        context.announce("http", bound)
        try:
            yield bound
        finally:
            server.close()
            await _finish(state, max(1.0, settings.drain_seconds / 2))


async def _keep_time(state: ServerState) -> None:
    """One clock for all connections: a timer for each wait of each of them would cost more than looking at all of them."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        state.date = _date()
        now = loop.time()
        for connection in list(state.connections):
            connection.look(now)


async def _finish(state: ServerState, seconds: float) -> None:
    """Lets the connections end; closes those that take longer."""
    state.closing = True
    for connection in list(state.connections):
        connection.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await state.emptied()
    for connection in list(state.connections):
        connection.abort()


def _date() -> bytes:
    return formatdate(usegmt=True).encode()


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
