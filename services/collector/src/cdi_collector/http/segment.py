"""Segment's HTTP API: one path per type for one event, batches, imports, pixels, and the settings that its browser SDK asks for.

RudderStack's and Jitsu's clients send the same events to other paths; their families use the readers here. Deliberately absent: the SDK
itself and its plugins, which a page loads from where it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import base64_text, client_event, pixel_query, rudderstack
from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.compression import too_large
from cdi_collector.domain.event_fields import invalid, too_many
from cdi_collector.domain.intake import with_defaults
from cdi_collector.domain.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES, MAX_LARGE_BATCH_BYTES
from cdi_collector.http.base import GET, Page, Parcel, Request, Route, Routes
from cdi_collector.http.responses import Response, as_json, pixel, refused_pixel
from cdi_kernel.clock import parse_instant
from cdi_kernel.faults import InvalidArgument, NotFound, Unauthenticated

TYPES: Final = ("identify", "track", "page", "screen", "group", "alias")

_MERGE: Final = b'"mergeProperties"'


def read_event(kind: str, request: Request) -> Parcel:
    """The one event of a body; the path names its type."""
    event = client_event.read_single(request.body)
    event.type = kind
    if kind == "merge":
        rudderstack.merge_to_identify(event, request.body)
    if anonymous_id := _anonymous_id(request):
        rudderstack.name_strangers((event,), anonymous_id)
    sent_us = None
    if event.sent_at is None and (sent_at := request.headers.get(b"sentat")) is not None:
        sent_us = parse_instant(sent_at.decode("latin-1"))
    return Parcel((event,), event.write_key, sent_us, None)


def read_batch(request: Request) -> Parcel:
    """The events of ``{"batch": […]}``, with the batch's own context and integrations given to each."""
    body = request.body
    whole, items = client_event.read_batch(body)
    if whole.write_key is not None and len(body) > MAX_BATCH_BYTES:
        # Only RudderStack's clients send more, and they never repeat their key in the body, as Segment's all do.
        raise too_large(MAX_BATCH_BYTES)
    if len(items) > MAX_BATCH_EVENTS:
        raise too_many(len(items))
    context, integrations = _object("context", whole.context), _object("integrations", whole.integrations)
    if context or integrations:
        items = with_defaults(items, context, integrations)
    if _MERGE in body:
        items = rudderstack.with_merges(items, client_event.raw_items(body))
    if anonymous_id := _anonymous_id(request):
        rudderstack.name_strangers(items, anonymous_id)
    sent_at = request.headers.get(b"sentat", b"").decode("latin-1") if whole.sent_at is None else whole.sent_at
    return Parcel(items, whole.write_key, parse_instant(sent_at), partial(client_event.raw_items, body))


def read_import(request: Request) -> Parcel:
    """A batch of old events: their times are taken as given, whatever the client's clock says now."""
    parcel = read_batch(request)
    for item in parcel.items:
        if isinstance(item, ClientEvent):
            _pin_time(item)
    return parcel


def read_pixel(kind: str, request: Request) -> Parcel:
    """The event in the address of an image."""
    arguments = request.query.values()
    event = client_event.read_single(pixel_query.event_json(arguments))
    event.type = kind
    return Parcel((event,), event.write_key or arguments.get("writeKey"), None, None, answer=_PIXEL)


def pixel_routes(prefix: str) -> Routes:
    """The pixel of every type below a path."""
    return {f"{prefix}/{kind}": Route(0, partial(read_pixel, kind), GET, refuse=refused_pixel) for kind in TYPES}


def settings(request: Request) -> Response:
    """What analytics.js has to know of its source: to send everything here and to load nothing else.

    Raises:
        NotFound: no source has the write key.
        PermissionDenied: the source is switched off.
    """
    write_key = request.params["write_key"]
    try:
        request.sources.authenticate(write_key)
    except Unauthenticated as fault:
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no source has this write key", metadata={"resource": "source"}) from fault
    own: dict[str, Any] = {"apiKey": write_key, "unbundledIntegrations": [], "addBundledMetadata": True, "versionSettings": {}}
    if host := request.header(b"host"):
        own |= {"apiHost": f"{host}/v1", "protocol": _protocol(request)}
    return as_json(
        {
            "integrations": {"Segment.io": own},
            "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
            "edgeFunction": {},
            "analyticsNextEnabled": True,
            "middlewareSettings": {},
            "enabledMiddleware": {},
            # Otherwise the SDK reports how it does to its maker.
            "metrics": {"sampleRate": 0},
            "legacyVideoPluginsEnabled": False,
            "remotePlugins": [],
        }
    )


def _protocol(request: Request) -> str:
    """How the browser reaches this door: as the proxy says, else as the page was loaded, since a secure page may not call an open door."""
    forwarded = request.header(b"x-forwarded-proto").partition(",")[0].strip()
    if forwarded in ("http", "https"):
        return forwarded
    return "https" if request.header(b"origin").startswith("https:") else "http"


def _anonymous_id(request: Request) -> str:
    """What RudderStack's browser SDK says in a header too, base64; empty if it is absent or nothing that can be read."""
    header = request.headers.get(b"anonymousid")
    if not header:
        return ""
    try:
        return base64_text.decoded(header).decode()
    except (InvalidArgument, UnicodeDecodeError):
        return ""


def _pin_time(event: ClientEvent) -> None:
    # An event that gives both times wants its timestamp taken as it is.
    if event.timestamp is None:
        event.timestamp = event.original_timestamp
    elif event.original_timestamp is None:
        event.original_timestamp = event.timestamp


def _object(field: str, raw: msgspec.Raw) -> bytes:
    text = bytes(raw)
    if text in (b"", b"null"):
        return b""
    if not text.startswith(b"{"):
        raise invalid(field, "an object is expected")
    return text


def _event_routes(names: Sequence[tuple[str, str]]) -> Routes:
    return {f"/v1/{name}": Route(MAX_EVENT_BYTES, partial(read_event, kind)) for name, kind in names}


_PIXEL: Final = pixel()
_BATCH: Final = Route(MAX_BATCH_BYTES, read_batch, known_max_bytes=MAX_LARGE_BATCH_BYTES)

ROUTES: Final[Routes] = {
    **_event_routes([(kind, kind) for kind in TYPES]),
    **_event_routes([(kind[0], kind) for kind in TYPES]),
    "/v1/batch": _BATCH,
    "/v1/b": _BATCH,
    "/v1/import": Route(MAX_BATCH_BYTES, read_import),
    **pixel_routes("/v1/pixel"),
}
PATTERNS: Final[Routes] = {"/v1/projects/{write_key}/settings": Page(settings)}
