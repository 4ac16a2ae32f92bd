"""The decoders of the collector, each as a function of bytes, and what must hold whatever the bytes are.

Only a ``Fault`` may come out of a decoder. What it takes becomes events that protobuf can parse, within the limits, whose objects are JSON;
what it refuses can be kept as rejected. A decoder runs the whole way: unzip, read, apply the rules, serialize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1.event_pb2 import EVENT_TYPE_IDENTIFY, EVENT_TYPE_TRACK, Event, EventBatch
from cdi_collector.convert import ingest
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import Item
from cdi_collector.domain.compression import decompressed
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.intake import Arrival, admit
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_EVENT_BYTES, MAX_NESTING
from cdi_collector.domain.rejections import rejected_events
from cdi_collector.domain.sources import Source, SourceSnapshot, hash_of
from cdi_collector.http.base import Parcel, Query, Request, Route
from cdi_collector.http.registry import installed
from cdi_collector.settings import Settings
from cdi_kernel.faults import Fault
from cdi_kernel.ids import SourceId, WorkspaceId

KEYS: Final = ("WRITEKEY", "keyid:keysecret", "phc_WRITEKEY")
"""Write keys of the captures that fuzzing starts from."""

_RECEIVED_US: Final = 1_795_262_400_000_000
_PARTITIONS: Final = 8
_SOURCE: Final = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset(map(hash_of, KEYS)))
_SOURCES: Final = SourceSnapshot([_SOURCE])
_ROUTES: Final = installed(Settings(snowplow_redirect_hosts=("shop.example",)))
_OBJECTS: Final = ("properties", "traits", "context", "integrations")


def _body(path: str, headers: Mapping[bytes, bytes], data: bytes) -> None:
    """Bytes as the body of a POST."""
    _run(path, "POST", b"", data, headers)


def _query(path: str, data: bytes) -> None:
    """Bytes as the query of a GET."""
    _run(path, "GET", data, b"", {})


def _unzipped(data: bytes) -> None:
    """Bytes as a body that calls itself gzip."""
    limit = MAX_EVENT_BYTES
    try:
        text = decompressed(b"\x1f\x8b" + data, limit)
    except Fault:
        return
    assert len(text) <= limit


def _called(data: bytes) -> None:
    """Bytes as a gRPC request."""
    for as_sent in (True, False):
        try:
            batch = ingest.batch_of(data)
            items = ingest.items_of(batch, as_sent=as_sent)
        except Fault:
            return
        if len(items) <= MAX_BATCH_EVENTS:
            _hold(items, batch.sent_us, None)


DECODERS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "single": partial(_body, "/v1/track", {}),
    "batch": partial(_body, "/v1/batch", {}),
    "import": partial(_body, "/v1/import", {b"sentat": b"2026-11-21T10:00:00Z", b"anonymousid": b"YW5vbg=="}),
    "merge": partial(_body, "/v1/merge", {}),
    "jitsu": partial(_body, "/api/s/page", {b"x-write-key": b"keyid:keysecret", b"x-ip-policy": b"stripLastOctet"}),
    "pixel": partial(_query, "/v1/pixel/track"),
    "snowplow": partial(_body, "/com.snowplowanalytics.snowplow/tp2", {}),
    "snowplow-anonymous": partial(_body, "/com.snowplowanalytics.snowplow/tp2", {b"sp-anonymous": b"*"}),
    "snowplow-query": partial(_query, "/i"),
    "snowplow-redirect": partial(_query, "/r/tp2"),
    "posthog": partial(_body, "/batch/", {}),
    "posthog-people": partial(_body, "/engage/", {}),
    "cloudevents": partial(_body, "/v1/cloudevents", {}),
    "cloudevents-binary": partial(
        _body, "/v1/cloudevents", {b"ce-specversion": b"1.0", b"ce-id": b"1", b"ce-source": b"/a", b"ce-type": b"t"}
    ),
    "webhook": partial(_body, "/v1/webhook/WRITEKEY", {}),
    "gzip": _unzipped,
    "grpc": _called,
}
"""By name. ``NAME`` of ``make fuzz NAME=…`` is one of them."""


def seeds(captures: Path) -> dict[str, list[bytes]]:
    """What real SDKs sent, for every decoder the same: the bodies for those that read one, the queries for the others."""
    bodies, queries = [], []
    for file in sorted(captures.glob("*/*.raw")):
        head, _, body = file.read_bytes().partition(b"\r\n\r\n")
        if body:
            bodies.append(body)
        if query := head.split(b" ")[1].partition(b"?")[2]:
            queries.append(query)
    event = pb.EventInput(message_id="m", type=EVENT_TYPE_TRACK, name="n", user_id="u")
    event.properties_json = b'{"a":[1,{"b":"c"}]}'
    event.original_time.seconds = 1_795_262_400
    structured = pb.EventInput(message_id="m", type=EVENT_TYPE_IDENTIFY, user_id="u")
    structured.traits.update({"a": {"b": 1}})
    given = {name: queries if isinstance(decode, partial) and decode.func is _query else bodies for name, decode in DECODERS.items()}
    return given | {"gzip": [body[2:] for body in bodies if body[:2] == b"\x1f\x8b"], "grpc": [_request(event), _request(structured)]}


def _request(event: pb.EventInput) -> bytes:
    return pb.IngestEventsRequest(events=[event, event]).SerializeToString()


def _run(path: str, method: str, query: bytes, wire_body: bytes, headers: Mapping[bytes, bytes]) -> None:
    found = _ROUTES.find(path)
    assert found is not None
    route, params = found
    assert isinstance(route, Route)
    limit = route.known_max_bytes or route.max_bytes
    try:
        body = decompressed(wire_body, limit)
        assert len(body) <= limit
        parcel: Parcel = route.read(Request(method, path, params, Query(query), headers, body, _SOURCES, "203.0.113.7", wire_body))
    except Fault:
        return
    _hold(parcel.items, parcel.sent_us, parcel.payloads)


def _hold(items: Sequence[Item] | EncodedEvents, sent_us: int | None, payloads: Callable[[], Sequence[bytes]] | None) -> None:
    """Asserts what the module promises."""
    assert len(items) <= MAX_BATCH_EVENTS
    arrival = Arrival(_SOURCE, _RECEIVED_US, sent_us, "203.0.113.7", "fuzz", _PARTITIONS, lambda: "made")
    intake = admit(items, arrival, {})
    accepted = 0
    for partition, frames in intake.frames.items():
        for frame in frames:
            assert len(frame) <= MAX_EVENT_BYTES
            (event,) = EventBatch.FromString(frame).events
            _check(event, partition)
            accepted += 1
    assert accepted == intake.accepted
    assert all(refusal.index < len(items) for refusal in intake.refusals)
    if payloads is not None and intake.refusals:
        texts = payloads()
        assert len(texts) == len(items)
        rejected = rejected_events(intake, texts, _SOURCE, _RECEIVED_US, "fuzz", lambda: "made")
        assert all(event.SerializeToString() for event in rejected)


def _check(event: Event, partition: int) -> None:
    assert event.type
    assert event.message_id
    assert event.user_id or event.anonymous_id
    assert event.partition == partition
    assert "\0" not in event.message_id + event.user_id + event.anonymous_id + event.name
    for name in _OBJECTS:
        text: bytes = getattr(event, name)
        if text:
            assert json_text.check(text) is None, (name, text[:200])
            assert isinstance(orjson.loads(text), dict), (name, text[:200])
            assert not json_text.too_deep(text, MAX_NESTING), (name, text[:200])
