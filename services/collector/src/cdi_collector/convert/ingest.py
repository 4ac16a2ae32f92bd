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
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, EncodedEvent, Instant, Item, JsonText, depth_fault
from cdi_collector.domain.event_fields import TYPES, invalid
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_ID_LENGTH, MAX_NAME_LENGTH
from cdi_collector.faults import malformed
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault
from cdi_kernel.ids import MAX_MESSAGE_ID_LENGTH
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
    properties_json: bytes
    properties: bytes
    traits_json: bytes
    traits: bytes
    context_json: bytes
    context: bytes
    integrations_json: bytes
    integrations: bytes
    schema_uri: str

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The message without what its type does not know."""
        ...

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
_VIEWS: Final = (event_pb2.EVENT_TYPE_PAGE, event_pb2.EVENT_TYPE_SCREEN)
_ZERO: Final = b"\0"

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
        return cast("BatchView", _known(_Batch.FromString(wire)))
    except DecodeError as error:
        raise malformed("this is no IngestEventsRequest") from error


def stream_request_of(wire: bytes) -> StreamView:
    """A serialized ``StreamEventsRequest``; raises ``InvalidArgument`` if it is none."""
    try:
        return cast("StreamView", _known(_Stream.FromString(wire)))
    except DecodeError as error:
        raise malformed("this is no StreamEventsRequest") from error


def items_of(batch: BatchView, *, as_sent: bool) -> Sequence[Item | EncodedEvent]:
    """The events of a request, each or why it is none.

    Args:
        batch: the request.
        as_sent: whether an event may be taken as the client serialized it; else all can be changed.
    """
    events = list(batch.events)
    if as_sent and _have_plain_objects(events):
        return [_encoded(event) or _item(event) for event in events]
    return [_item(event) for event in events]


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


def _have_plain_objects(events: Sequence[EventView]) -> bool:
    """Whether all objects of a request are what nearly all are: given in the fast form, JSON without space around it."""
    texts: list[bytes] = []
    for event in events:
        if event.properties or event.traits or event.context or event.integrations:
            return False
        texts += (event.properties_json, event.traits_json, event.context_json, event.integrations_json)
    return json_text.are_plain_objects([text for text in texts if text])


def _encoded(event: EventView) -> EncodedEvent | None:
    """An event that nothing is to be said about, as the client serialized it; ``None`` for one that has to be looked at closely.

    Nearly all are like this. What is asked here is stricter than the rules of ``event_fields``, never laxer.
    """
    kind, name, category = event.type, event.name, event.category
    if kind == event_pb2.EVENT_TYPE_TRACK:
        if not name or category:
            return None
    elif kind == event_pb2.EVENT_TYPE_IDENTIFY:
        if name or category or not event.traits_json:
            return None
    elif kind not in _VIEWS or len(category) > MAX_NAME_LENGTH:
        return None
    if len(name) > MAX_NAME_LENGTH or event.group_id or event.previous_id or event.schema_uri:
        return None
    message_id, user_id, anonymous_id = event.message_id, event.user_id, event.anonymous_id
    if not 0 < len(message_id) <= MAX_MESSAGE_ID_LENGTH or len(user_id) > MAX_ID_LENGTH or len(anonymous_id) > MAX_ID_LENGTH:
        return None
    if not (person := anonymous_id or user_id):
        return None
    original_us = None
    if (time := event.original_time) and (original_us := _known_instant(time)) is None:
        return None
    fields = event.SerializeToString()
    # A sub-message or an object that is there and empty, and U+0000 in a text: neither leaves fields without a zero byte.
    return None if _ZERO in fields else EncodedEvent(message_id, person, original_us, fields)


def _item(event: EventView) -> Item:
    try:
        kind, name = _NAMES.get(event.type) or _unnamed(event.type), event.name
        return ClientEvent(
            type=kind,
            message_id=event.message_id,
            event=name,
            name=name,
            category=event.category,
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            group_id=event.group_id,
            previous_id=event.previous_id,
            schema_uri=event.schema_uri,
            original_timestamp=_instant(event.original_time) if event.HasField("original_time") else None,
            properties=_object(event, "properties"),
            traits=_object(event, "traits"),
            context=_object(event, "context"),
            integrations=_object(event, "integrations"),
        )
    except Fault as fault:
        return fault


def _known(request: Message) -> Message:
    """The request without fields that its type does not know: as fields of an event they could mean something."""
    request.DiscardUnknownFields()
    return request


def _unnamed(kind: int) -> str:
    return "" if kind == event_pb2.EVENT_TYPE_UNSPECIFIED else str(kind)


def _object(event: EventView, field: str) -> JsonText:
    """The text of an object that is given in the fast form or, serialized, in the convenient one."""
    if text := getattr(event, f"{field}_json"):
        return _checked(field, text)
    if not event.HasField(field):
        return ABSENT
    try:
        return _checked(field, msgspec.json.encode(json_format.MessageToDict(Struct.FromString(getattr(event, field)))))
    except DecodeError as error:
        raise invalid(field, "a Struct is expected") from error
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


def _known_instant(raw: bytes) -> int | None:
    """A serialized ``Timestamp`` as SDKs write it, in milliseconds, of a second that was seen before or that fits; else ``None``."""
    # Events of one time share their seconds.
    if (fraction := _FRACTIONS.get(raw[_SECONDS_LENGTH:])) is None:
        return None
    if (second := _seconds.get(head := raw[:_SECONDS_LENGTH])) is None:
        if not _SECONDS.match(head):
            return None
        if len(_seconds) >= _CACHED_SECONDS:
            _seconds.clear()
        second = _seconds[head] = Timestamp.FromString(head).seconds * 1_000_000
    return second + fraction


def _instant(raw: bytes) -> Instant:
    """A serialized ``Timestamp``."""
    try:
        time = Timestamp.FromString(raw)
    except DecodeError as error:
        raise invalid("original_time", "a Timestamp is expected") from error
    if (micros := _micros(time)) is None:
        raise invalid("original_time", "a time between the years 1 and 9999 is expected")
    return Instant(micros)


def _micros(time: Timestamp) -> int | None:
    micros = time.seconds * 1_000_000 + time.nanos // 1_000
    return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None
