"""A request that nothing is to be said about, taken as its client serialized it: ``IngestEventsRequest`` → ``EncodedEvents``.

Nearly all are like this. So all of a request is looked at column by column, which takes two thirds of the time of a look at each event,
and one odd event sends the whole request the way on which each is looked at (``ingest``). What is asked here is stricter than the rules
of ``event_fields``, never laxer; a test holds both ways against each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, product
from operator import attrgetter
from typing import Final, cast

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.limits import MAX_ID_LENGTH, MAX_NAME_LENGTH
from cdi_kernel.ids import MAX_MESSAGE_ID_LENGTH
from cdi_kernel.shallow import shallow
from cdi_kernel.wire import varint

_TEXTS: Final = ("message_id", "user_id", "anonymous_id", "group_id", "name", "category")
_OBJECTS: Final = ("traits_json", "properties_json", "context_json", "integrations_json")
_FIELDS: Final = ("type", "original_time", *_TEXTS, *_OBJECTS)
_LIMITS: Final = (MAX_MESSAGE_ID_LENGTH, *[MAX_ID_LENGTH] * 3, *[MAX_NAME_LENGTH] * 2)
_View: Final = shallow(pb.IngestEventsRequest, 2, only=_FIELDS)
_row: Final = attrgetter(*_FIELDS)
_ZERO: Final = b"\0"


def _is_plain(kind: int, group_id: int, name: int, category: int, traits: int) -> bool:
    """Whether an event of a type with just these of its fields needs no second look."""
    if kind == event_pb2.EVENT_TYPE_TRACK:
        return bool(name) and not (category or group_id)
    if kind == event_pb2.EVENT_TYPE_IDENTIFY:
        # Without traits of its own those of its context count.
        return bool(traits) and not (name or category or group_id)
    if kind == event_pb2.EVENT_TYPE_GROUP:
        return bool(group_id) and not (name or category)
    return not group_id


_KINDS: Final = tuple(map(event_pb2.EventType.Value, [f"EVENT_TYPE_{name}" for name in ("TRACK", "IDENTIFY", "PAGE", "SCREEN", "GROUP")]))
_PLAIN: Final = frozenset(shape for shape in product(_KINDS, *[(False, True)] * 4) if _is_plain(*shape))

# The seconds of a Timestamp between 1978 and 3058 with their tag, and all fractions of whole milliseconds that may follow them.
_SECONDS_LENGTH: Final = 6
_SECONDS: Final = re.compile(rb"\x08[\x80-\xff]{4}[\x00-\x7f]")
_FRACTIONS: Final = {b"": 0} | {b"\x10" + varint(millis * 1_000_000): millis * 1_000 for millis in range(1, 1_000)}
_CACHED_SECONDS: Final = 10_000
_seconds: dict[bytes, int] = {}
"""Microseconds since 1970 by what ``_SECONDS_LENGTH`` bytes say."""


def encoded_events(wire: bytes, fields: Sequence[bytes]) -> EncodedEvents | None:
    """The events of a request if nothing is to be said about any of them, else ``None``.

    Args:
        wire: the request.
        fields: its events, serialized.
    """
    # An object or a time that is there and empty, and U+0000 in a text: neither leaves a request without a zero byte.
    if not fields or _ZERO in wire or (events := _known_events(wire)) is None:
        return None
    kinds, times, *columns = zip(*map(_row, events), strict=True)
    texts, objects = columns[: len(_TEXTS)], columns[len(_TEXTS) :]
    message_ids, user_ids, anonymous_ids, *named = texts
    if not _PLAIN.issuperset(zip(kinds, *[map(bool, column) for column in (*named, objects[0])], strict=True)):
        return None
    if any(max(map(len, column)) > limit for column, limit in zip(texts, _LIMITS, strict=True)):
        return None
    persons = [anonymous_id or user_id for anonymous_id, user_id in zip(anonymous_ids, user_ids, strict=True)]
    if not all(message_ids) or not all(persons):
        return None
    original_us = [_known_instant(time) if time else None for time in times]
    if original_us.count(None) != times.count(b""):
        return None
    if not json_text.are_plain_objects(list(filter(None, chain.from_iterable(objects)))):
        return None
    return EncodedEvents(message_ids, persons, times, original_us, fields)


def _known_events(wire: bytes) -> Sequence[Message] | None:
    """The events of a request if they say no more than what is looked at here: as fields of an event the rest could mean something."""
    try:
        request = _View.FromString(wire)
    except DecodeError:
        return None
    request.DiscardUnknownFields()
    if request.SerializeToString() != wire:
        return None
    return cast("Sequence[Message]", request.events)  # type: ignore[attr-defined]  # the class is made at run time


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
