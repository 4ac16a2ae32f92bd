"""A load generator that costs little beside what it measures: prepared requests, one protocol object per connection, no streams or tasks.

Two ways to send: ``Hammer.closed`` keeps one request under way on every connection, which finds the most that a server takes;
``Hammer.open`` sends at a constant rate whatever the answers do, and counts latency from when a request was due, so that a server which
stalls is charged for all that had to wait (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, cast

from bench.traffic import WRITE_KEY

_STATUS: Final = slice(9, 12)
_LENGTH: Final = b"content-length: "
_TICK_SECONDS: Final = 0.001


def http_request(path: str, body: bytes, key: str = WRITE_KEY) -> bytes:
    """A POST with Basic credentials, ready to be sent."""
    authorization = base64.b64encode(f"{key}:".encode()).decode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Basic {authorization}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(slots=True)
class Struck:
    """What a run saw.

    Attributes:
        seconds: from the first request to the last answer that counts.
        answered: requests that were answered 200.
        refused: answers other than 200, by status.
        latencies: seconds of every answer.
    """

    seconds: float = 0.0
    answered: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """Sends one request at a time."""

    def __init__(self, hammer: Hammer) -> None:
        self._hammer = hammer
        self._received = b""
        self._due = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def strike(self, request: bytes, due: float) -> None:
        self._due = due
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end > 0:
            at = received.find(_LENGTH, 0, end) + len(_LENGTH)
            if len(received) >= end + 4 + int(received[at : received.index(b"\r", at)]):
                self._received = b""
                self._hammer.answered(self, int(received[_STATUS]), time.perf_counter() - self._due)
                return
        self._received = received

    def connection_lost(self, exc: Exception | None) -> None:
        self._hammer.lost(self)


class Hammer:
    """Open connections to one server."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests: Iterator[bytes] = cycle(requests)
        self._connections: list[_Connection] = []
        self._free: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._sending = self._refill = False
        self._struck = Struck()
        self._idle = asyncio.Event()
        self._under_way = 0
        self._broken = False

    async def connect(self, address: str, connections: int) -> None:
        """Opens connections to ``host:port``."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(lambda: _Connection(self), host, int(port))
            self._connections.append(made)
        self._free = list(self._connections)

    async def closed(self, seconds: float) -> Struck:
        """One request under way on every connection for some seconds; as many as the server takes."""
        self._struck, self._refill, self._sending = Struck(), True, True
        started = time.perf_counter()
        for connection in self._connections:
            self._strike(connection, started)
        await asyncio.sleep(seconds)
        struck, self._struck = self._struck, Struck()
        struck.seconds = time.perf_counter() - started
        await self._settled()
        return struck

    async def once(self) -> Struck:
        """One request on every connection."""
        self._struck, self._refill, self._sending = Struck(), False, True
        started = time.perf_counter()
        for connection in self._connections:
            self._strike(connection, started)
        await self._settled()
        self._struck.seconds = time.perf_counter() - started
        return self._struck

    async def open(self, per_second: float, seconds: float) -> Struck:
        """A constant rate for some seconds; a request that finds no free connection waits, and its waiting counts."""
        self._struck, self._refill, self._sending = Struck(), False, True
        self._free = list(self._connections)
        started = time.perf_counter()
        count = 0
        while (now := time.perf_counter()) < started + seconds:
            while count < (now - started) * per_second:
                self._waiting.append(started + count / per_second)
                count += 1
            while self._waiting and self._free:
                self._strike(self._free.pop(), self._waiting.popleft())
            await asyncio.sleep(_TICK_SECONDS)
        await self._settled()
        self._struck.seconds = time.perf_counter() - started
        return self._struck

    def close(self) -> None:
        """Closes every connection."""
        connections, self._connections = self._connections, []
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()

    def answered(self, connection: _Connection, status: int, latency: float) -> None:
        """An answer has come."""
        struck = self._struck
        self._under_way -= 1
        if status == 200:
            struck.answered += 1
        else:
            struck.refused[status] = struck.refused.get(status, 0) + 1
        struck.latencies.append(latency)
        if self._sending and (self._refill or self._waiting):
            self._strike(connection, time.perf_counter() if self._refill else self._waiting.popleft())
            return
        self._free.append(connection)
        if not self._under_way:
            self._idle.set()

    def lost(self, connection: _Connection) -> None:
        """A connection has ended, which only ``close`` may bring about."""
        if connection in self._connections:
            self._broken = True
            self._idle.set()

    def _strike(self, connection: _Connection, due: float) -> None:
        self._under_way += 1
        self._idle.clear()
        connection.strike(next(self._requests), due)

    async def _settled(self) -> None:
        self._refill = False
        if self._under_way:
            await asyncio.wait_for(self._idle.wait(), 30)
        self._sending = False
        if self._broken:
            raise ConnectionError("the server closed a connection")
