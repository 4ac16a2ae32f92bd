"""HTTP/1.1 on one connection: heads and bodies to the application, answers back in the order of the requests.

Made for the one thing that the door does, on httptools, which parses: a request that has come whole is handed over in the call that brought
its last byte, and its answer leaves in one write. A general server costs a task, several futures and a second system call per request
(figures: docs/benchmarks.md). Requests may be pipelined. Every wait has an end: the server looks at ``overdue``.
Deliberately absent: HTTP/2, TLS, upgrades, and answers in pieces; a proxy has them.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools

from cdi.error.v1 import error_pb2
from cdi_collector.faults import HeadTooLarge, malformed
from cdi_collector.http.app import HttpApp, Reception
from cdi_collector.http.cors import cors_headers
from cdi_collector.http.exchange import Exchange
from cdi_collector.http.responses import Response, rendered
from cdi_kernel.faults import Fault
from cdi_runtime.telemetry import logger

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together."""

_MAX_PIPELINED: Final = 64
_LINGER_SECONDS: Final = 1.0
_STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %s\r\ndate: " % (status, status.phrase.encode()) for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n"
_BREAKS: Final = re.compile(rb"[\r\n\0]")
_log = logger(__name__)


@dataclass(slots=True)
class ServerState:
    """What the connections of a server share.

    Attributes:
        app: takes the requests.
        head_seconds: time for a head to arrive.
        body_seconds: time for a body to arrive, and for one that nobody wants any more to end.
        keep_alive_seconds: how long an idle connection stays open.
        max_connections: further ones are closed at once.
        date: for the header, kept by the server.
        connections: the open ones.
        closing: connections end after what they are doing.
        changed: set when a connection is gone.
    """

    app: HttpApp
    head_seconds: float
    body_seconds: float
    keep_alive_seconds: float
    max_connections: int
    date: bytes = b""
    connections: set[Connection] = field(default_factory=set)
    closing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def emptied(self) -> None:
        """Returns when no connection is open."""
        while self.connections:
            self.changed.clear()
            await self.changed.wait()


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._app = state.app
        self._now = asyncio.get_running_loop().time
        self._parser: Any = httptools.HttpRequestParser(self)
        # After ``Connection: close`` a client may send what it likes; nobody reads it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self._peer = ""
        self._waiting: deque[Exchange] = deque()
        """Requests whose head has come and whose answer has not left, in their order."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._in_head = self._in_body = False
        self._unparsed = 0
        """Bytes of a body that the parser does not see, because the request asked for another protocol."""
        self._exchange: Exchange | None = None
        self._reception: Reception | None = None
        """Of the request whose body is coming; ``None`` when nobody wants it."""
        self._ended = self._stalled = False
        self._last: Exchange | None = None
        """The request after whose answer the connection ends."""
        self._overdue = math.inf
        """By the loop's clock: when what it is doing has taken too long."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection: closed at once beyond the limit, otherwise given time for its first head."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass of asyncio's
        if len(self._state.connections) >= self._state.max_connections:
            self.abort()
            return
        self._state.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._wait(self._state.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. What was handed over is stored all the same; of a request that has not come whole nothing is kept."""
        self._state.connections.discard(self)
        self._state.changed.set()
        self._overdue = math.inf
        if self._exchange is not None:
            self._exchange.release()
        self._reception = self._exchange = None
        self._waiting.clear()
        # It refers back to the connection: without it, nothing is left to the garbage collector.
        self._parser = None

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._ended:
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as error:
            _log.error("http.connection_failed", exc_info=error.__context__)
            self.abort()
            return
        except httptools.HttpParserError:
            self._refuse(malformed("this is not an HTTP request"))
            return
        if self._in_head and not self._ended:
            if self._head_bytes > MAX_HEAD_BYTES:
                limit = {"limit": str(MAX_HEAD_BYTES)}
                self._refuse(HeadTooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the head is over {MAX_HEAD_BYTES} bytes", metadata=limit))
            elif self._overdue == math.inf:
                self._wait(self._state.head_seconds)
        elif self._stalled:
            self._wait(0.0)
        if len(self._waiting) > _MAX_PIPELINED:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client will send no more. Whether it is still to be answered: if all that it began has come whole."""
        if self._ended or self._exchange is not None or not self._waiting:
            return False
        self._last = self._waiting[-1]
        return True

    def pause_writing(self) -> None:
        """The client does not read its answers: then it is not read either, for a while."""
        self._transport.pause_reading()
        self._stalled = True
        self._wait(0.0)

    def resume_writing(self) -> None:
        """It does again."""
        self._stalled = False
        self._transport.resume_reading()
        self._wait(self._state.body_seconds if self._in_body else self._state.head_seconds)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._url = b""
        self._headers = {}
        self._in_head = True
        self._overdue = math.inf

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; also one that follows a body in chunks, which nobody looks at."""
        if self._in_head:
            name = name.lower()
            if name == b"x-forwarded-for" and name in self._headers:
                value = self._headers[name] + b"," + value
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head, self._in_body = False, True
        self._head_bytes = 0
        if self._last is not None:
            # Nobody will be answered any more: nothing is taken.
            return
        parser, headers = self._parser, self._headers
        raw_path, _, query = self._target().partition(b"?")
        path = raw_path.decode("latin-1")
        exchange = Exchange(
            parser.get_method().decode(), unquote(path) if "%" in path else path, query, headers, self._peer, self._app.budget
        )
        if not parser.should_keep_alive() or self._state.closing:
            self._last = exchange
        if parser.should_upgrade():
            # Answered as if it had not asked, as HTTP allows; some clients ask for HTTP/2 with every first request.
            self._unparsed = int(headers.get(b"content-length", b"0"))
        self._exchange = exchange
        self._waiting.append(exchange)
        self._reception = self._app.begin(exchange)
        exchange.when_answered(self._flush)
        if self._reception is not None and b"expect" in headers:
            self._invite()

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        if (reception := self._reception) is not None:
            self._app.receive(reception, chunk)
            if reception.exchange.response is not None:
                self._reception = None

    def on_message_complete(self) -> None:
        """The body is complete, if the parser sees it."""
        if self._unparsed:
            return
        self._in_body = False
        self._head_bytes = 0
        self._overdue = math.inf
        reception, self._reception, self._exchange = self._reception, None, None
        if reception is not None:
            self._app.finish(reception)
        elif not self._waiting:
            self._rest()

    def look(self, now: float) -> None:
        """Ends what has taken too long, by the loop's clock."""
        if now < self._overdue:
            return
        self._overdue = math.inf
        reception, self._reception = self._reception, None
        if self._ended:
            self.abort()
        elif reception is None:
            self.end()
        else:
            self._last = reception.exchange
            self._app.give_up(reception)

    def end(self) -> None:
        """Ends the connection: at once if nothing is going on, otherwise after the answer to what has begun."""
        if self._waiting:
            self._last = self._waiting[-1]
        else:
            self.close()

    def close(self) -> None:
        """Ends the connection: no more answers. What still comes is thrown away, for a moment, until the client ends it too.

        Closing with unread bytes would reset the connection, and the last answers could be lost (RFC 9112, section 9.6).
        """
        if not self._ended:
            self._ended = True
            self._transport.write_eof()
            self._wait(_LINGER_SECONDS)

    def abort(self) -> None:
        """Ends the connection, whatever has not left."""
        self._ended = True
        self._transport.abort()

    def _feed(self, data: bytes) -> None:
        if self._unparsed:
            body, data = data[: self._unparsed], data[self._unparsed :]
            self._unparsed -= len(body)
            self.on_body(body)
            if not self._unparsed:
                self.on_message_complete()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed(data[upgrade.args[0] :])
        if self._in_body and self._overdue == math.inf:
            self._wait(self._state.body_seconds)

    def _target(self) -> bytes:
        """Path and query of the request, which may name a host in front of them."""
        url = self._url
        if url[:1] == b"/" and b"#" not in url:
            return url
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError:
            return url
        return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")

    def _invite(self) -> None:
        """Tells a client that waits for it to send its body, if it is its turn to be answered."""
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._waiting[0] is self._exchange:
            self._transport.write(_CONTINUE)

    def _flush(self) -> None:
        """Writes the answers whose turn it is."""
        waiting, transport = self._waiting, self._transport
        if not waiting:
            return
        crowded = len(waiting) > _MAX_PIPELINED
        while waiting and (response := waiting[0].response) is not None:
            exchange = waiting.popleft()
            if self._ended:
                continue
            ends = exchange is self._last
            transport.write(written(exchange, response, self._state.date, ends=ends))
            if ends:
                self.close()
        if self._ended:
            return
        if crowded and len(waiting) <= _MAX_PIPELINED:
            transport.resume_reading()
        if waiting:
            if waiting[0] is self._exchange and self._reception is not None:
                self._invite()
        elif self._in_body:
            # It still comes, and is thrown away, for a while.
            self._reception = None
            self._wait(self._state.body_seconds)
        elif not self._in_head:
            self._rest()

    def _rest(self) -> None:
        if self._state.closing:
            self.close()
        else:
            self._wait(self._state.keep_alive_seconds)

    def _refuse(self, fault: Fault) -> None:
        """Answers what is no request, after the answers to those before it, and ends the connection."""
        exchange = self._exchange
        if self._in_body and exchange is not None:
            self._last, self._reception = exchange, None
            if exchange not in self._waiting:
                self.close()
            exchange.answer(rendered(fault))
        elif self._waiting:
            self._last = self._waiting[-1]
        elif not self._ended:
            nobody = Exchange("", "", b"", {}, self._peer, self._app.budget)
            self._transport.write(written(nobody, rendered(fault), self._state.date, ends=True))
            self.close()

    def _wait(self, seconds: float) -> None:
        self._overdue = self._now() + (self._state.keep_alive_seconds if self._stalled else seconds)


def written(exchange: Exchange, response: Response, date: bytes, *, ends: bool) -> bytes:
    """An answer as it is sent."""
    parts = [_STATUS_LINES[response.status], date, b"\r\n"]
    headers = response.headers
    if (origin := exchange.headers.get(b"origin")) and not exchange.origin_hidden:
        headers += cors_headers(origin)
    for name, value in headers:
        parts += (name, b": ", _BREAKS.sub(b" ", value) if _BREAKS.search(value) else value, b"\r\n")
    if response.status != HTTPStatus.NO_CONTENT:
        parts.append(b"content-length: %d\r\n" % len(response.body))
    if ends and not any(name == b"connection" for name, _ in headers):
        parts.append(_CLOSE)
    parts.append(b"\r\n")
    if exchange.method != "HEAD":
        parts.append(response.body)
    return b"".join(parts)
