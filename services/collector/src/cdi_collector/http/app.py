"""The ASGI application: from a request to a submission, and from the outcome to a response."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.application import Budget, Collector, Submission
from cdi_collector.domain.compression import decompressed, too_large
from cdi_collector.domain.limits import MAX_BATCH_BYTES
from cdi_collector.faults import MethodNotAllowed, SlowClient
from cdi_collector.http.base import Route, Routes
from cdi_kernel.faults import Fault, Internal, NotFound
from cdi_runtime.telemetry import logger

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_JSON: Final = (b"content-type", b"application/json")
_BASIC: Final = b"basic "
_MAX_HEADER_TEXT: Final = 1_024
_log = logger(__name__)


class Disconnected(Exception):
    """The client went away; nobody is there to be answered."""


class HttpApp:
    """Takes POSTs of the routes, one event batch each.

    Args:
        collector: the use case.
        budget: bounds what is in memory.
        routes: by path.
        body_seconds: time for a body to arrive.
        proxy_hops: proxies of one's own in front.
    """

    def __init__(self, collector: Collector, budget: Budget, routes: Routes, *, body_seconds: float, proxy_hops: int) -> None:
        self._collector = collector
        self._budget = budget
        self._routes = routes
        self._body_seconds = body_seconds
        self._proxy_hops = proxy_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        held = _Held(self._budget)
        headers: list[Header] = []
        try:
            status, body = 200, await self._take(scope, receive, held)
        except Disconnected:
            return
        except Fault as fault:
            status, headers, body = rendered(fault)
            self._collector.tally.refused(fault, "http")
        except Exception as error:  # noqa: BLE001 - the outermost catch of a request
            status, headers, body = _bug(error)
        finally:
            held.release()
        headers += (_JSON, (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _take(self, scope: Scope, receive: Receive, held: _Held) -> bytes:
        """Stores the events of a request; returns the body of the 200."""
        route = self._route(scope)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        header_key = basic_user(headers.get(b"authorization", b""))
        if header_key is not None:
            # A stranger is refused before any byte of the body is kept.
            self._collector.authenticate(header_key)
        body = await self._body(receive, headers, held)
        plain = decompressed(body, route.max_bytes)
        if plain is not body:
            held.take(len(plain))
        parcel = route.read(plain)
        source = self._collector.authenticate(header_key if header_key is not None else parcel.write_key)
        submission = Submission(
            protocol="http",
            items=parcel.items,
            sent_us=parcel.sent_us,
            client_ip=client_ip(scope, self._proxy_hops),
            user_agent=_header_text(headers.get(b"user-agent", b"")),
            traceparent=_header_text(headers.get(b"traceparent", b"")),
            payloads=parcel.payloads,
        )
        intake = await self._collector.collect(source, submission)
        if intake.refusals and parcel.payloads is None:
            raise intake.refusals[0].fault
        return route.success

    def _route(self, scope: Scope) -> Route:
        route = self._routes.get(scope["path"])
        if route is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is nothing at this path", metadata={"resource": "path"})
        if scope["method"] != "POST":
            raise MethodNotAllowed("this path takes POST", metadata={"field": "method"})
        return route

    async def _body(self, receive: Receive, headers: dict[bytes, bytes], held: _Held) -> bytes:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > MAX_BATCH_BYTES:
            raise too_large(MAX_BATCH_BYTES)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Disconnected
                    chunk: bytes = message["body"]
                    held.take(len(chunk))
                    if held.amount > MAX_BATCH_BYTES:
                        raise too_large(MAX_BATCH_BYTES)
                    chunks.append(chunk)
                    if not message["more_body"]:
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError as error:
            text = f"the body did not arrive within {self._body_seconds:g} s"
            raise SlowClient(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, text) from error


class _Held:
    """What one request has in memory."""

    __slots__ = ("_budget", "amount")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.amount = 0

    def take(self, amount: int) -> None:
        self._budget.take(amount)
        self.amount += amount

    def release(self) -> None:
        self._budget.give(self.amount)
        self.amount = 0


def rendered(fault: Fault) -> tuple[int, list[Header], bytes]:
    """A fault as status, headers and JSON body."""
    headers: list[Header] = []
    if fault.retry_after is not None or fault.http_status == 503:
        headers.append((b"retry-after", b"%d" % math.ceil(fault.retry_after or 1.0)))
    if isinstance(fault, MethodNotAllowed):
        headers.append((b"allow", b"POST"))
    if isinstance(fault, SlowClient):
        headers.append((b"connection", b"close"))
    return fault.http_status, headers, msgspec.json.encode({"code": fault.reason_name, "message": fault.message})


def basic_user(authorization: bytes) -> str | None:
    """The user name of Basic credentials, which is the write key; ``None`` if there are none, empty if they cannot be read."""
    if authorization[:6].lower() != _BASIC:
        return None
    try:
        credentials = base64.b64decode(authorization[6:].strip(), validate=True)
    except binascii.Error:
        return ""
    return credentials.partition(b":")[0].decode("utf-8", "replace")


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


def _header_text(value: bytes) -> str:
    return value[:_MAX_HEADER_TEXT].decode("latin-1").replace("\0", "")


def _bug(error: Exception) -> tuple[int, list[Header], bytes]:
    correlation_id = secrets.token_hex(8)
    _log.error("http.failed", correlation_id=correlation_id, exc_info=error)
    return rendered(Internal(error_pb2.ERROR_REASON_INTERNAL, f"internal error {correlation_id}"))
