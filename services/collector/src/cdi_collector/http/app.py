"""The HTTP application: from a request to what is handed over, and from what came of that to an answer.

It is called by a connection (``http/connection.py``) and never waits: what takes time ends in a call of ``Exchange.answer``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_collector.admission import Budget
from cdi_collector.application import Collector, Submission
from cdi_collector.domain.compression import decompressed, too_large
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.signals import NO_SIGNALS, Signals
from cdi_collector.domain.sources import Source, SourceSnapshot
from cdi_collector.faults import MethodNotAllowed, OriginNotAllowed, SlowClient
from cdi_collector.http.base import Handler, Page, Parcel, Query, Request, Route, RouteTable, basic_user
from cdi_collector.http.cors import preflight
from cdi_collector.http.exchange import Exchange
from cdi_collector.http.responses import rendered
from cdi_kernel.faults import Fault, Internal, NotFound, Unavailable
from cdi_runtime.telemetry import logger

_NO_PARAMS: Final[Mapping[str, str]] = {}
_log = logger(__name__)


class Reception:
    """A request whose head has been let in: what takes it, how much of it, and for whom, as far as the head says.

    Attributes:
        exchange: the request.
        limit: bytes that its body may have; 0 for a page that does not look at one.
    """

    __slots__ = ("exchange", "handler", "header_key", "limit", "params", "source", "sources")

    def __init__(self, exchange: Exchange, handler: Handler, params: Mapping[str, str], sources: SourceSnapshot) -> None:
        self.exchange = exchange
        self.handler = handler
        self.params = params
        self.limit = handler.max_bytes
        self.header_key: str | None = None
        self.sources = sources
        self.source: Source | None = None


class HttpApp:
    """Answers requests to the paths of a table.

    Args:
        collector: the use case.
        budget: bounds what is in memory.
        routes: the table.
        body_seconds: what clients are told when they take longer.
        proxy_hops: proxies of one's own in front.
    """

    def __init__(self, collector: Collector, budget: Budget, routes: RouteTable, *, body_seconds: float, proxy_hops: int) -> None:
        self._collector = collector
        self._routes = routes
        self._body_seconds = body_seconds
        self._proxy_hops = proxy_hops
        self.budget = budget

    def begin(self, exchange: Exchange) -> Reception | None:
        """A head has come. What cannot be taken need not come: ``None`` if the exchange has its answer."""
        if exchange.method == "OPTIONS":
            exchange.answer(preflight())
            return None
        handler: Handler | None = None
        try:
            exchange.enter()
            handler, params = self._found(exchange)
            reception = Reception(exchange, handler, params, self._collector.sources)
            if isinstance(handler, Route):
                self._let_in(reception, handler)
            if reception.limit or isinstance(handler, Route):
                declared = exchange.headers.get(b"content-length", b"0")
                if declared.isdigit() and int(declared[:20]) > reception.limit:
                    raise too_large(reception.limit)
        except Exception as error:  # noqa: BLE001 - the outermost catch of a head
            self._refuse(exchange, handler, error)
            return None
        return reception

    def receive(self, reception: Reception, chunk: bytes) -> None:
        """A piece of the body."""
        if not reception.limit and isinstance(reception.handler, Page):
            return
        try:
            if reception.exchange.hold(len(chunk)) > reception.limit:
                raise too_large(reception.limit)
            reception.exchange.keep(chunk)
        except Fault as fault:
            self._refuse(reception.exchange, reception.handler, fault)

    def finish(self, reception: Reception) -> None:
        """The request has come whole."""
        exchange, handler = reception.exchange, reception.handler
        try:
            if isinstance(handler, Route):
                self._take(reception, handler)
            else:
                exchange.answer(handler.respond(self._request(reception)))
        except Exception as error:  # noqa: BLE001 - the outermost catch of a request
            self._refuse(exchange, handler, error)

    def give_up(self, reception: Reception) -> None:
        """The body has not come in time."""
        text = f"the body did not arrive within {self._body_seconds:g} s"
        self._refuse(reception.exchange, reception.handler, SlowClient(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, text))

    def _let_in(self, reception: Reception, route: Route) -> None:
        """Whom Basic credentials name, if they do. A stranger is refused before any byte of the body is kept."""
        exchange = reception.exchange
        reception.header_key = basic_user(exchange.headers.get(b"authorization", b"")) if route.basic else None
        if reception.header_key is not None:
            reception.source = _admitted(reception.sources.authenticate(reception.header_key), exchange)
            self._collector.pace.check(reception.source)
            reception.limit = route.known_max_bytes or route.max_bytes

    def _take(self, reception: Reception, route: Route) -> None:
        """Hands the events of a request over; it is answered when they are stored."""
        exchange, source = reception.exchange, reception.source
        request = self._request(reception)
        parcel = route.read(request)
        if parcel.source is not None:
            source = parcel.source
        elif source is None or request.sources is not reception.sources:
            # While the body came, the key may have been revoked.
            source = request.sources.authenticate((parcel.write_key or "") if reception.header_key is None else reception.header_key)
        self._collector.pace.charge(_admitted(source, exchange), len(parcel.items))
        submission = Submission(
            "http",
            parcel.items,
            parcel.sent_us,
            request.client_ip if parcel.client_ip is None else parcel.client_ip,
            request.header(b"user-agent"),
            request.header(b"traceparent"),
            _signals(exchange.headers),
            parcel.payloads,
        )
        intake, stored = self._collector.hand_over(source, submission)
        stored.add_done_callback(partial(self._stored, exchange, route, parcel, intake))

    def _stored(self, exchange: Exchange, route: Route, parcel: Parcel, intake: Intake, outcome: asyncio.Future[None]) -> None:
        if outcome.cancelled():
            self._refuse(exchange, route, Unavailable("collector", "the collector is stopping"))
        elif (error := outcome.exception()) is not None:
            self._refuse(exchange, route, error)
        else:
            self._collector.tally.stored(intake, "http")
            if intake.refusals and parcel.payloads is None:
                self._refuse(exchange, route, intake.refusals[0].fault)
            else:
                exchange.answer(parcel.answer)

    def _found(self, exchange: Exchange) -> tuple[Handler, Mapping[str, str]]:
        found = self._routes.find(exchange.path)
        if found is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is nothing at this path", metadata={"resource": "path"})
        method, methods = exchange.method, found[0].methods
        if method not in methods and not (method == "HEAD" and "GET" in methods and isinstance(found[0], Page)):
            raise MethodNotAllowed(methods)
        return found

    def _request(self, reception: Reception) -> Request:
        exchange = reception.exchange
        wire_body = exchange.body()
        body = decompressed(wire_body, reception.limit)
        if body is not wire_body:
            exchange.hold(len(body))
        return Request(
            "GET" if exchange.method == "HEAD" else exchange.method,
            exchange.path,
            reception.params,
            Query(exchange.query),
            exchange.headers,
            body,
            self._collector.sources,
            client_ip(exchange, self._proxy_hops),
            wire_body,
        )

    def _refuse(self, exchange: Exchange, handler: Handler | None, error: BaseException) -> None:
        fault = error if isinstance(error, Fault) else _bug(error)
        exchange.origin_hidden = isinstance(fault, OriginNotAllowed)
        exchange.answer((rendered if handler is None else handler.refuse)(fault))
        if fault is error:
            self._collector.tally.refused(fault, "http")


def _admitted(source: Source, exchange: Exchange) -> Source:
    """The source, if the page that sends, if it is one, may send to it."""
    origin = exchange.headers.get(b"origin")
    if origin is not None and not source.protection.admits(origin.decode("latin-1")):
        metadata = {"source": source.source_id}
        raise OriginNotAllowed(error_pb2.ERROR_REASON_ORIGIN_NOT_ALLOWED, "the source does not take events of this page", metadata=metadata)
    return source


def _signals(headers: Mapping[bytes, bytes]) -> Signals:
    do_not_track, privacy_control = headers.get(b"dnt") == b"1", headers.get(b"sec-gpc") == b"1"
    return Signals(do_not_track, privacy_control) if do_not_track or privacy_control else NO_SIGNALS


def client_ip(exchange: Exchange, proxy_hops: int) -> str:
    """Where the request came from: the peer, or what the outermost of one's own proxies saw.

    Each proxy appends what it saw, so with n of them the n-th address from the right is the last that cannot be forged.
    """
    if not proxy_hops:
        return exchange.peer
    forwarded = exchange.headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
    try:
        return str(ipaddress.ip_address(forwarded[-proxy_hops].strip()))
    except (IndexError, ValueError):
        return exchange.peer


def _bug(error: BaseException) -> Fault:
    correlation_id = secrets.token_hex(8)
    _log.error("http.failed", correlation_id=correlation_id, exc_info=error)
    return Internal(error_pb2.ERROR_REASON_INTERNAL, f"internal error {correlation_id}")
