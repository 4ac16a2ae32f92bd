"""Jitsu's HTTP API: Segment's events, one per request, with the key in a header of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.client_ip import without_host_part
from cdi_collector.domain.limits import MAX_BATCH_BYTES, MAX_EVENT_BYTES
from cdi_collector.http.base import Parcel, Request, Route, Routes
from cdi_collector.http.responses import as_json
from cdi_collector.http.segment import TYPES, read_batch, read_event

_SUCCESS: Final = as_json({"ok": True})


class _Named(msgspec.Struct):
    name: str | None = None


_decode_named: Final = msgspec.json.Decoder(_Named).decode


def read(read_body: Callable[[Request], Parcel], request: Request) -> Parcel:
    """The parcel of a body in Segment's shape. The key in it is masked, and therefore nobody's."""
    parcel = read_body(request)
    parcel.write_key = request.header(b"x-write-key") or None
    parcel.answer = _SUCCESS
    for item in parcel.items:
        if isinstance(item, ClientEvent) and item.type in ("page", "screen") and not item.name:
            item.name = _name_in(bytes(item.properties))
    policy = request.header(b"x-ip-policy")
    if policy == "remove":
        parcel.client_ip = ""
    elif policy == "stripLastOctet":
        parcel.client_ip = without_host_part(request.client_ip)
    return parcel


def _name_in(properties: bytes) -> str | None:
    """The name of a page or screen, which Jitsu's SDK writes among the properties alone."""
    if b'"name"' not in properties:
        return None
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        return _decode_named(properties).name
    return None


_EVENTS: Final = {kind: Route(MAX_EVENT_BYTES, partial(read, partial(read_event, kind))) for kind in TYPES}

ROUTES: Final[Routes] = {
    **{f"/api/s/{kind}": route for kind, route in _EVENTS.items()},
    **{f"/api/s/s2s/{kind}": route for kind, route in _EVENTS.items()},
    "/api/s/s2s/batch": Route(MAX_BATCH_BYTES, partial(read, read_batch)),
}
