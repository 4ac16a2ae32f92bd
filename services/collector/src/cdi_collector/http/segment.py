"""Segment's HTTP API: one path per type for one event, and ``/v1/batch``."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import client_event
from cdi_collector.domain.event_fields import invalid
from cdi_collector.domain.intake import with_defaults
from cdi_collector.domain.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES
from cdi_collector.http.base import Parcel, Request, Route, Routes
from cdi_kernel.clock import parse_instant
from cdi_kernel.faults import TooLarge

_TYPES: Final = ("identify", "track", "page", "screen", "group", "alias")


def read_single(kind: str, request: Request) -> Parcel:
    """The event of ``/v1/<kind>``; the path names its type."""
    event = client_event.read_single(request.body)
    event.type = kind
    return Parcel((event,), event.write_key, None, None)


def read_batch(request: Request) -> Parcel:
    """The events of ``/v1/batch``, with the batch's own context and integrations given to each."""
    body = request.body
    whole, items = client_event.read_batch(body)
    if len(items) > MAX_BATCH_EVENTS:
        metadata = {"limit": str(MAX_BATCH_EVENTS), "size": str(len(items))}
        raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the batch has more than {MAX_BATCH_EVENTS} events", metadata=metadata)
    context, integrations = _object("context", whole.context), _object("integrations", whole.integrations)
    if context or integrations:
        items = with_defaults(items, context, integrations)
    return Parcel(items, whole.write_key, parse_instant(whole.sent_at), partial(client_event.raw_items, body))


def _object(field: str, raw: msgspec.Raw) -> bytes:
    text = bytes(raw)
    if text in (b"", b"null"):
        return b""
    if not text.startswith(b"{"):
        raise invalid(field, "an object is expected")
    return text


ROUTES: Final[Routes] = {
    **{f"/v1/{kind}": Route(MAX_EVENT_BYTES, partial(read_single, kind)) for kind in _TYPES},
    "/v1/batch": Route(MAX_BATCH_BYTES, read_batch),
}
