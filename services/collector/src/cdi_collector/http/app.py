"""The ASGI application: from a request to a submission, and from the outcome to a response."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.admission import Budget
from cdi_collector.application import Collector, Submission
from cdi_collector.domain.compression import decompressed, too_large
from cdi_collector.domain.signals import NO_SIGNALS, Signals
from cdi_collector.domain.sources import Source
from cdi_collector.faults import MethodNotAllowed, OriginNotAllowed, SlowClient
from cdi_collector.http.base import Handler, Page, Query, Request, Route, RouteTable, basic_user
from cdi_collector.http.cors import cors_headers, preflight
from cdi_collector.http.responses import Header, Response, rendered
from cdi_kernel.faults import Fault, Internal, NotFound
from cdi_runtime.telemetry import logger

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logger(__name__)


class Disconnected(Exception):
    """The client went away; nobody is there to be answered."""


class HttpApp:
    """Answers requests to the paths of a table.

    Args:
        collector: the use case.
        budget: bounds what is in memory.
        routes: the table.
        body_seconds: time for a body to arrive.
        proxy_hops: proxies of one's own in front.
    """

    def __init__(self, collector: Collector, budget: Budget, routes: RouteTable, *, body_seconds: float, proxy_hops: int) -> None:
        self._collector = collector
        self._budget = budget
        self._routes = routes
        self._body_seconds = body_seconds
        self._proxy_hops = proxy_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        exchange = _Exchange(scope, receive, dict(scope["headers"]), self._budget)
        refuse: Callable[[Fault], Response] = rendered
        readable = True
        try:
            if scope["method"] == "OPTIONS":
                response = preflight()
            else:
                # Before the body is read: what cannot be taken need not come.
                exchange.enter()
                handler, params = self._found(scope)
                refuse = handler.refuse
                if isinstance(handler, Route):
                    response = await self._take(handler, params, exchange)
                else:
                    response = await self._show(handler, params, exchange)
        except Disconnected:
            return
        except Fault as fault:
            response = refuse(fault)
            readable = not isinstance(fault, OriginNotAllowed)
            self._collector.tally.refused(fault, "http")
        except Exception as error:  # noqa: BLE001 - the outermost catch of a request
            response = refuse(_bug(error))
        finally:
            exchange.release()
        headers = _headers(response, exchange.headers.get(b"origin") if readable else None)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _take(self, route: Route, params: Mapping[str, str], exchange: _Exchange) -> Response:
        """Stores the events of a request; returns its success."""
        header_key = basic_user(exchange.headers.get(b"authorization", b"")) if route.basic else None
        limit, source, sources = route.max_bytes, None, self._collector.sources
        if header_key is not None:
            # A stranger is refused before any byte of the body is kept.
            source = self._admitted(sources.authenticate(header_key), exchange)
            self._collector.pace.check(source)
            limit = route.known_max_bytes or limit
        request = self._request(exchange, params, await self._body(exchange, limit), limit)
        parcel = route.read(request)
        if parcel.source is not None:
            source = parcel.source
        elif source is None or request.sources is not sources:
            # While the body came, the key may have been revoked.
            source = request.sources.authenticate((parcel.write_key or "") if header_key is None else header_key)
        self._admitted(source, exchange)
        self._collector.pace.charge(source, len(parcel.items))
        submission = Submission(
            protocol="http",
            items=parcel.items,
            sent_us=parcel.sent_us,
            client_ip=request.client_ip if parcel.client_ip is None else parcel.client_ip,
            user_agent=request.header(b"user-agent"),
            traceparent=request.header(b"traceparent"),
            signals=_signals(exchange.headers),
            payloads=parcel.payloads,
        )
        intake = await self._collector.collect(source, submission)
        if intake.refusals and parcel.payloads is None:
            raise intake.refusals[0].fault
        return parcel.answer

    def _admitted(self, source: Source, exchange: _Exchange) -> Source:
        """The source, if the page that sends, if it is one, may send to it."""
        origin = exchange.headers.get(b"origin")
        if origin is not None and not source.protection.admits(origin.decode("latin-1")):
            metadata = {"source": source.source_id}
            raise OriginNotAllowed(
                error_pb2.ERROR_REASON_ORIGIN_NOT_ALLOWED, "the source does not take events of this page", metadata=metadata
            )
        return source

    async def _show(self, page: Page, params: Mapping[str, str], exchange: _Exchange) -> Response:
        body = await self._body(exchange, page.max_bytes) if page.max_bytes else b""
        return page.respond(self._request(exchange, params, body, page.max_bytes))

    def _found(self, scope: Scope) -> tuple[Handler, Mapping[str, str]]:
        found = self._routes.find(scope["path"])
        if found is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is nothing at this path", metadata={"resource": "path"})
        method, methods = scope["method"], found[0].methods
        if method not in methods and not (method == "HEAD" and "GET" in methods and isinstance(found[0], Page)):
            raise MethodNotAllowed(methods)
        return found

    def _request(self, exchange: _Exchange, params: Mapping[str, str], wire_body: bytes, limit: int) -> Request:
        scope = exchange.scope
        body = decompressed(wire_body, limit)
        if body is not wire_body:
            exchange.take(len(body))
        return Request(
            "GET" if scope["method"] == "HEAD" else scope["method"],
            scope["path"],
            params,
            Query(scope["query_string"]),
            exchange.headers,
            body,
            self._collector.sources,
            client_ip(scope, self._proxy_hops),
            wire_body,
        )

    async def _body(self, exchange: _Exchange, limit: int) -> bytes:
        declared = exchange.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise too_large(limit)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await exchange.receive()
                    if message["type"] != "http.request":
                        raise Disconnected
                    chunk: bytes = message["body"]
                    exchange.take(len(chunk))
                    if exchange.held > limit:
                        raise too_large(limit)
                    chunks.append(chunk)
                    if not message["more_body"]:
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError as error:
            text = f"the body did not arrive within {self._body_seconds:g} s"
            raise SlowClient(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, text) from error


class _Exchange(msgspec.Struct, gc=False):
    """A request on its way, and what it has in memory."""

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]
    budget: Budget
    held: int = 0
    entered: bool = False

    def enter(self) -> None:
        self.budget.enter()
        self.entered = True

    def take(self, amount: int) -> None:
        self.budget.take(amount)
        self.held += amount

    def release(self) -> None:
        self.budget.give(self.held)
        self.held = 0
        if self.entered:
            self.entered = False
            self.budget.leave()


def _signals(headers: Mapping[bytes, bytes]) -> Signals:
    do_not_track, privacy_control = headers.get(b"dnt") == b"1", headers.get(b"sec-gpc") == b"1"
    return Signals(do_not_track, privacy_control) if do_not_track or privacy_control else NO_SIGNALS


def _headers(response: Response, origin: bytes | None) -> list[Header]:
    headers = [*response.headers, *cors_headers(origin)] if origin else [*response.headers]
    if response.status != 204:
        headers.append((b"content-length", b"%d" % len(response.body)))
    return headers


def client_ip(scope: Scope, proxy_hops: int) -> str:
    """Where the request came from: the peer, or what the outermost of one's own proxies saw.

    Each proxy appends what it saw, so with n of them the n-th address from the right is the last that cannot be forged.
    """
    peer = scope["client"][0] if scope["client"] else ""
    if not proxy_hops:
        return peer
    forwarded = ",".join(_forwarded(scope["headers"])).split(",")
    try:
        return str(ipaddress.ip_address(forwarded[-proxy_hops].strip()))
    except (IndexError, ValueError):
        return peer


def _forwarded(headers: Iterable[Header]) -> Iterable[str]:
    return (value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for")


def _bug(error: Exception) -> Fault:
    correlation_id = secrets.token_hex(8)
    _log.error("http.failed", correlation_id=correlation_id, exc_info=error)
    return Internal(error_pb2.ERROR_REASON_INTERNAL, f"internal error {correlation_id}")
