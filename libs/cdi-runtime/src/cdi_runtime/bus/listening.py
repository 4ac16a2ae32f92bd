"""Listening: what is published from now on, for as long as somebody cares. Nothing is stored for the listener or acknowledged."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from cdi_runtime.bus.connection import API_DEADLINE_SECONDS, Bus


@asynccontextmanager
async def listening(bus: Bus, subject: str, heard: Callable[[bytes], None], missed: Callable[[], None]) -> AsyncIterator[None]:
    """Hears every message published on a subject while the block runs.

    Args:
        bus: the connection.
        subject: the subject.
        heard: called with each payload; must not block.
        missed: called when messages may have passed unheard: at the beginning, and when the connection is back. At that moment the
            server hears for us again: what is read afterwards and what is heard leave no gap between them.
    """

    async def take(message: Any) -> None:
        heard(message.data)

    subscription = await bus.client.subscribe(subject, cb=take)
    bus.on_reconnect.add(missed)
    try:
        with contextlib.suppress(NatsError):  # a connection that was lost just now is followed by the next one
            await _processed(bus.client)
        missed()
        yield
    finally:
        bus.on_reconnect.discard(missed)
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()


async def _processed(client: Client) -> None:
    """Returns when the server has done all that was sent so far. nats-py's ``flush`` does not tell: its ping overtakes what waits."""
    inbox = client.new_inbox()
    echo = await client.subscribe(inbox, max_msgs=1)
    await client.publish(inbox, b"")
    await echo.next_msg(timeout=API_DEADLINE_SECONDS)
