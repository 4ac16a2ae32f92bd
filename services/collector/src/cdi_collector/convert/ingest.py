"""Requests and answers of ``CollectorService`` ↔ domain, on bytes where an object per event would cost more than reading it.

Times and JSON objects of a request stay serialized (``cdi_kernel.shallow``), and the results of an answer are written field by field; a
test holds both against the generated code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Instant, Item, JsonText, depth_fault
from cdi_collector.domain.event_fields import TYPES, invalid
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.limits import MAX_BATCH_EVENTS
from cdi_collector.faults import malformed
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault
from cdi_kernel.shallow import shallow
from cdi_kernel.wire import varint

_SHORT: Final = 4_097
_LENGTHS: Final = tuple(varint(length) for length in range(_SHORT))


class EventView(Protocol):
    """An ``EventInput`` whose sub-messages are bytes."""

    message_id: str
    type: int
    name: str
    category: str
    user_id: str
    anonymous_id: str
    group_id: str
    previous_id: str
    original_time: bytes
    properties: bytes
    traits: bytes
    context: bytes
    integrations: bytes
    schema_uri: str

    def HasField(self, field_name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a sub-message is there."""
        ...


class BatchView(Protocol):
    """An ``IngestEventsRequest`` with such events."""

    write_key: str
    events: Sequence[EventView]
    sent_time: Timestamp

    def HasField(self, field_name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a sub-message is there."""
        ...


class StreamView(Protocol):
    """A ``StreamEventsRequest`` with such a batch."""

    request_id: int
    batch: BatchView


_Batch: Final = shallow(pb.IngestEventsRequest, 2)
_Stream: Final = shallow(pb.StreamEventsRequest, 3)
_NAMES: Final[Mapping[int, str]] = {number: name for name, number in TYPES.items()}
_PLAIN: Final = frozenset({"track", "identify"})
_JSON_TAG: Final = varint(pb.JsonObject.DESCRIPTOR.fields_by_name["json"].number << 3 | 2)


def _heads() -> tuple[bytes, ...]:
    """What a ``JsonObject`` of the fast form starts with, by the length of the whole; empty where there is none of that length."""
    heads = [b""] * _SHORT
    for length, encoded in enumerate(_LENGTHS):
        head = _JSON_TAG + encoded
        if (whole := len(head) + length) < _SHORT:
            heads[whole] = head
    return tuple(heads)


_JSON_HEADS: Final = _heads()

# Of a result: its place, the head of its message id, and the status of an event that is stored.
_PLACES: Final = (b"", *(b"\x08" + varint(index) for index in range(1, MAX_BATCH_EVENTS)))
_MESSAGE_ID_HEADS: Final = (b"", *(b"\x12" + length for length in _LENGTHS[1:]))
_STORED: Final = b"\x1a\x00"
RESULTS_TAG: Final = varint(pb.IngestEventsResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | 2)
STREAM_RESULTS_TAG: Final = varint(pb.StreamEventsResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | 2)

# The seconds of a Timestamp between 1978 and 3058 with their tag, and all fractions of whole milliseconds that may follow them.
_SECONDS_LENGTH: Final = 6
_SECONDS: Final = re.compile(rb"\x08[\x80-\xff]{4}[\x00-\x7f]")
_FRACTIONS: Final = {b"": 0} | {b"\x10" + varint(millis * 1_000_000): millis * 1_000 for millis in range(1, 1_000)}
_CACHED_SECONDS: Final = 10_000
_seconds: dict[bytes, int] = {}
"""Microseconds since 1970 by what ``_SECONDS_LENGTH`` bytes say."""


def batch_of(wire: bytes) -> BatchView:
    """A serialized ``IngestEventsRequest``; raises ``InvalidArgument`` if it is none."""
    try:
        return cast("BatchView", _Batch.FromString(wire))
    except DecodeError as error:
        raise malformed("this is no IngestEventsRequest") from error


def stream_request_of(wire: bytes) -> StreamView:
    """A serialized ``StreamEventsRequest``; raises ``InvalidArgument`` if it is none."""
    try:
        return cast("StreamView", _Stream.FromString(wire))
    except DecodeError as error:
        raise malformed("this is no StreamEventsRequest") from error


def items_of(batch: BatchView) -> Sequence[Item]:
    """The events of a request, each or why it is none."""
    return [_item(event) for event in batch.events]


def sent_us_of(batch: BatchView) -> int | None:
    """When the client sent it; ``None`` if it did not say, or nothing that is a time."""
    return _micros(batch.sent_time) if batch.HasField("sent_time") else None


def results_of(tag: bytes, intake: Intake, statuses: Sequence[status_pb2.Status]) -> bytes:
    """One serialized ``IngestResult`` per event, in order.

    Args:
        tag: of the repeated field that they stand in.
        intake: what the request came to.
        statuses: of its refusals, in their order.
    """
    refused = {refusal.index: _status(status) for refusal, status in zip(intake.refusals, statuses, strict=True)}
    written: list[bytes] = []
    for index, message_id in enumerate(intake.message_ids):
        encoded = message_id.encode()
        place, head, status = _PLACES[index], _MESSAGE_ID_HEADS[len(encoded)], refused.get(index, _STORED)
        length = len(place) + len(head) + len(encoded) + len(status)
        written += (tag, _LENGTHS[length] if length < _SHORT else varint(length), place, head, encoded, status)
    return b"".join(written)


def _status(status: status_pb2.Status) -> bytes:
    serialized: bytes = status.SerializeToString()
    return b"\x1a" + varint(len(serialized)) + serialized


def _item(event: EventView) -> Item:
    try:
        kind, name = _NAMES.get(event.type) or _unnamed(event.type), event.name
        # Most events are of types that look at no more names and ids, and each of them costs a look.
        plain = kind in _PLAIN
        # In the order of the fields: naming seventeen of them costs as much as reading them.
        return ClientEvent(
            kind,
            event.message_id,
            name,
            name,
            None if plain else event.category,
            event.user_id,
            event.anonymous_id,
            None if plain else event.group_id,
            None if plain else event.previous_id,
            None if plain else event.schema_uri,
            None,
            _instant(raw) if (raw := event.original_time) or event.HasField("original_time") else None,
            None,
            _object("properties", raw) if (raw := event.properties) else ABSENT,
            _object("traits", raw) if (raw := event.traits) else ABSENT,
            _object("context", raw) if (raw := event.context) else ABSENT,
            _object("integrations", raw) if (raw := event.integrations) else ABSENT,
        )
    except Fault as fault:
        return fault


def _unnamed(kind: int) -> str:
    return "" if kind == event_pb2.EVENT_TYPE_UNSPECIFIED else str(kind)


def _object(field: str, raw: bytes) -> JsonText:
    """A serialized ``JsonObject``, which is not empty, as the text of an object."""
    # What nearly all are costs one look; the rest is looked at closely.
    if len(raw) < _SHORT and raw.startswith(head := _JSON_HEADS[len(raw)]) and json_text.is_plain_object(text := raw[len(head) :]):
        return text
    try:
        value = pb.JsonObject.FromString(raw)
    except DecodeError as error:
        raise invalid(field, "a JsonObject is expected") from error
    if value.json:
        return _checked(field, value.json)
    if not value.HasField("struct"):
        return ABSENT
    try:
        return _checked(field, msgspec.json.encode(json_format.MessageToDict(value.struct)))
    except (json_format.Error, ValueError) as error:
        # Which of them it is depends on the release of protobuf; the native one lets ValueError through.
        raise invalid(field, "a number of a Struct has to be finite") from error


def _checked(field: str, text: bytes) -> bytes:
    repaired, fault = json_text.checked(text)
    if fault is not None or not json_text.is_object(repaired):
        raise invalid(field, "UTF-8 JSON text of an object is expected")
    if (fault := depth_fault(field, repaired)) is not None:
        raise fault
    return repaired.strip()


def _instant(raw: bytes) -> Instant:
    """A serialized ``Timestamp``."""
    # Events of one time share their seconds, and SDKs write milliseconds.
    if (second := _seconds.get(raw[:_SECONDS_LENGTH])) is not None and (fraction := _FRACTIONS.get(raw[_SECONDS_LENGTH:])) is not None:
        return Instant(second + fraction)
    try:
        time = Timestamp.FromString(raw)
    except DecodeError as error:
        raise invalid("original_time", "a Timestamp is expected") from error
    if (micros := _micros(time)) is None:
        raise invalid("original_time", "a time between the years 1 and 9999 is expected")
    if _SECONDS.match(raw) and raw[_SECONDS_LENGTH:] in _FRACTIONS:
        if len(_seconds) >= _CACHED_SECONDS:
            _seconds.clear()
        _seconds[raw[:_SECONDS_LENGTH]] = time.seconds * 1_000_000
    return Instant(micros)


def _micros(time: Timestamp) -> int | None:
    micros = time.seconds * 1_000_000 + time.nanos // 1_000
    return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None
