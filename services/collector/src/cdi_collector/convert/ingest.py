"""Requests and answers of ``CollectorService`` ↔ domain, on bytes where an object per event would cost more than reading it.

Times and JSON objects of a request stay serialized (``cdi_kernel.shallow``), and the results of an answer are written field by field; a
test holds both against the generated code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Protocol, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_collector.convert.encoded import encoded_events
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Instant, Item, JsonText, depth_fault
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.event_fields import TYPES, invalid
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.limits import MAX_BATCH_EVENTS
from cdi_collector.faults import malformed
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault
from cdi_kernel.shallow import shallow
from cdi_kernel.wire import varint

M = TypeVar("M", bound=Message)

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

    def HasField(self, field_name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a sub-message is there."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """An ``IngestEventsRequest`` whose events are unread.

    Attributes:
        wire: the whole of it.
        write_key: what it says of who sends; may be empty.
        events: each as it was serialized.
        sent_us: when the client sent it; ``None`` if it did not say, or nothing that is a time.
    """

    wire: bytes
    write_key: str
    events: Sequence[bytes]
    sent_us: int | None


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A ``StreamEventsRequest``: the client's number of it, and the batch."""

    request_id: int
    batch: Batch


_Batch: Final = shallow(pb.IngestEventsRequest)
_Events: Final = shallow(pb.IngestEventsRequest, 2)
_Stream: Final = shallow(pb.StreamEventsRequest)
_NAMES: Final[Mapping[int, str]] = {number: name for name, number in TYPES.items()}

# Of a result: its place, the head of its message id, and the status of an event that is stored.
_PLACES: Final = (b"", *(b"\x08" + varint(index) for index in range(1, MAX_BATCH_EVENTS)))
_MESSAGE_ID_HEADS: Final = (b"", *(b"\x12" + length for length in _LENGTHS[1:]))
_STORED: Final = b"\x1a\x00"
RESULTS_TAG: Final = varint(pb.IngestEventsResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | 2)
STREAM_RESULTS_TAG: Final = varint(pb.StreamEventsResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | 2)


def batch_of(wire: bytes) -> Batch:
    """A serialized ``IngestEventsRequest``; raises ``InvalidArgument`` if it is none."""
    request: Any = _parsed(_Batch, wire, "IngestEventsRequest")
    sent_us = _micros(_parsed(Timestamp, request.sent_time, "Timestamp")) if request.HasField("sent_time") else None
    return Batch(wire, request.write_key, list(request.events), sent_us)


def stream_batch_of(wire: bytes) -> StreamBatch:
    """A serialized ``StreamEventsRequest``; raises ``InvalidArgument`` if it is none."""
    request: Any = _parsed(_Stream, wire, "StreamEventsRequest")
    return StreamBatch(request.request_id, batch_of(request.batch))


def items_of(batch: Batch, *, as_sent: bool) -> Sequence[Item] | EncodedEvents:
    """The events of a request, each or why it is none.

    Args:
        batch: the request.
        as_sent: whether events may be taken as the client serialized them; else all can be changed.

    Raises:
        InvalidArgument: one of them is no ``EventInput``.
    """
    if as_sent and (encoded := encoded_events(batch.wire, batch.events)) is not None:
        return encoded
    request: Any = _parsed(_Events, batch.wire, "IngestEventsRequest")
    return [_item(event) for event in request.events]


def results_of(tag: bytes, intake: Intake, statuses: Sequence[status_pb2.Status]) -> bytes:
    """One serialized ``IngestResult`` per event, in order.

    Args:
        tag: of the repeated field that they stand in.
        intake: what the request came to.
        statuses: of its refusals, in their order.
    """
    refused = {refusal.index: _status(status) for refusal, status in zip(intake.refusals, statuses, strict=True)}
    ends = [refused.get(index, _STORED) for index in range(len(intake.message_ids))] if refused else repeat(_STORED)
    written: list[bytes] = []
    for place, message_id, status in zip(_PLACES, intake.message_ids, ends, strict=False):
        encoded = message_id.encode()
        head = _MESSAGE_ID_HEADS[len(encoded)]
        length = len(place) + len(head) + len(encoded) + len(status)
        written += (tag, _LENGTHS[length] if length < _SHORT else varint(length), place, head, encoded, status)
    return b"".join(written)


def _status(status: status_pb2.Status) -> bytes:
    serialized: bytes = status.SerializeToString()
    return b"\x1a" + varint(len(serialized)) + serialized


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


def _parsed(kind: type[M], wire: bytes, name: str) -> M:
    try:
        return kind.FromString(wire)
    except DecodeError as error:
        raise malformed(f"this is no {name}") from error


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
