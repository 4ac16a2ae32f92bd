"""Answers of the HTTP door: what they are, those that many families share, and a fault as one."""

from __future__ import annotations

import base64
import math
from typing import Final, TypeAlias

import msgspec

from cdi_collector.faults import MethodNotAllowed, OverRate, SlowClient
from cdi_kernel.faults import Fault

Header: TypeAlias = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")
TEXT: Final[Header] = (b"content-type", b"text/plain; charset=utf-8")
GIF: Final[Header] = (b"content-type", b"image/gif")
# What was counted from a cache would not be counted: a pixel is asked for every time.
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_PIXEL: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")


class Response(msgspec.Struct, frozen=True, gc=False):
    """An answer. Its length and the headers of CORS are added when it is sent.

    Attributes:
        status: of HTTP.
        body: empty for none.
        headers: the type of the body, and others; names in lower case.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[Header, ...] = ()


def as_json(content: object, status: int = 200, *headers: Header) -> Response:
    """An answer in JSON."""
    return Response(status, msgspec.json.encode(content), (JSON, *headers))


def as_text(content: str, status: int = 200, *headers: Header) -> Response:
    """An answer in plain text."""
    return Response(status, content.encode(), (TEXT, *headers))


def pixel(*headers: Header) -> Response:
    """One transparent point, as a GIF that nobody may keep."""
    return Response(200, _PIXEL, (GIF, _NO_STORE, *headers))


def rendered(fault: Fault) -> Response:
    """A fault as JSON, with its code and its message."""
    return as_json({"code": fault.reason_name, "message": fault.message}, fault.http_status, *fault_headers(fault))


def refused_pixel(fault: Fault) -> Response:
    """A fault as the pixel, so that no page shows a broken image. The status still says that nothing was stored."""
    return Response(fault.http_status, _PIXEL, (GIF, _NO_STORE, *fault_headers(fault)))


def fault_headers(fault: Fault) -> list[Header]:
    """The headers that go with a fault, whatever its body is."""
    headers: list[Header] = []
    if fault.retry_after is not None or fault.http_status == 503:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(fault.retry_after or 1.0))))
    if isinstance(fault, OverRate):
        headers.append((b"x-ratelimit-reset", b"%d" % fault.reset_seconds))
    if isinstance(fault, MethodNotAllowed):
        headers.append((b"allow", ", ".join(sorted(fault.allowed)).encode()))
    if isinstance(fault, SlowClient):
        headers.append((b"connection", b"close"))
    return headers


SUCCESS: Final = Response(200, b'{"success": true}', (JSON,))
"""Segment's answer, which every one of its SDKs and RudderStack's takes."""
