"""The rules of an event's fields, each appending what passed to the serialized event. ``admit`` calls them in order.

Every function raises a ``Fault`` for what breaks a rule; the fault's metadata name the field in the client's spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2
from cdi_collector.domain import json_text, wire
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Identifier, Time
from cdi_collector.domain.limits import MAX_EVENT_BYTES, MAX_ID_LENGTH, MAX_NAME_LENGTH, MAX_NESTING
from cdi_kernel import clock
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault, InvalidArgument, Rejected, TooLarge
from cdi_kernel.ids import MAX_MESSAGE_ID_LENGTH

TYPES: Final[Mapping[str, int]] = {
    "track": event_pb2.EVENT_TYPE_TRACK,
    "identify": event_pb2.EVENT_TYPE_IDENTIFY,
    "page": event_pb2.EVENT_TYPE_PAGE,
    "screen": event_pb2.EVENT_TYPE_SCREEN,
    "group": event_pb2.EVENT_TYPE_GROUP,
    "alias": event_pb2.EVENT_TYPE_ALIAS,
    "self_describing": event_pb2.EVENT_TYPE_SELF_DESCRIBING,
}
"""The types by the name that clients use."""

_TYPE_FIELDS: Final = {name: wire.TYPE + wire.size(number) for name, number in TYPES.items()}
_EXACT_IN_DOUBLE: Final = 2**53
_OPENING_BRACE: Final = ord("{")


def append_message_id(parts: list[bytes], given: Identifier, made: str) -> str:
    """The message id: the client's, or ``made`` if it has none. Returns it."""
    text = _identifier("messageId", given) or made
    if len(text) > MAX_MESSAGE_ID_LENGTH:
        metadata = {"limit": str(MAX_MESSAGE_ID_LENGTH)}
        raise Rejected(error_pb2.ERROR_REASON_MESSAGE_ID_TOO_LONG, "the message id is too long", metadata=metadata)
    parts += wire.MESSAGE_ID.of(text.encode())
    return text


def append_subject(parts: list[bytes], item: ClientEvent) -> str:
    """Type, names and ids. Returns what the partition is made from: the anonymous id, else the user id."""
    kind = item.type
    if kind is None or (type_field := _TYPE_FIELDS.get(kind)) is None:
        raise _unknown_type(kind)
    parts.append(type_field)
    person = ""
    if (user_id := item.user_id) is not None and user_id != "":
        person = _append_id(parts, wire.USER_ID, "userId", user_id)
    if (anonymous_id := item.anonymous_id) is not None and anonymous_id != "":
        person = _append_id(parts, wire.ANONYMOUS_ID, "anonymousId", anonymous_id)
    if not person:
        raise Rejected(error_pb2.ERROR_REASON_MISSING_IDENTITY, "an event needs a userId or an anonymousId")
    if kind == "track":
        _append_name(parts, wire.NAME, "event", item.event or missing("event"))
    elif kind != "identify":
        _append_of_type(parts, kind, item)
    return person


def append_times(parts: list[bytes], item: ClientEvent, received_us: int, sent_us: int | None) -> None:
    """Original, sent and event time.

    SDKs send the original time as ``timestamp``. Only a client that gives both names wants ``timestamp`` taken as it is
    (reference: Segment's clock correction).

    Args:
        parts: of the event.
        item: the event.
        received_us: when the request came.
        sent_us: when the client sent the request; an event's own ``sentAt`` wins.
    """
    if item.sent_at is not None:
        sent_us = instant(item.sent_at)
    given_us = None if item.timestamp is None else _time("timestamp", item.timestamp)
    if item.original_timestamp is None:
        original_us = given_us
        event_us = clock.correct_skew(received_us, original_us, sent_us)
    else:
        original_us = _time("originalTimestamp", item.original_timestamp)
        event_us = clock.correct_skew(received_us, original_us, sent_us) if given_us is None else given_us
    if original_us is not None:
        parts += (wire.ORIGINAL_TIME, wire.timestamp(original_us))
    if sent_us is not None:
        parts += (wire.SENT_TIME, wire.timestamp(sent_us))
    parts += (wire.EVENT_TIME, wire.timestamp(event_us))


def append_objects(parts: list[bytes], item: ClientEvent) -> None:
    """Properties, traits, context and integrations: the client's bytes."""
    if item.properties is not ABSENT:
        _append_object(parts, wire.PROPERTIES, "properties", item.properties)
    if item.traits is not ABSENT:
        _append_object(parts, wire.TRAITS, "traits", item.traits)
    if item.context is not ABSENT:
        _append_object(parts, wire.CONTEXT, "context", item.context)
    if item.integrations is not ABSENT:
        _append_object(parts, wire.INTEGRATIONS, "integrations", item.integrations)


def instant(value: Time) -> int | None:
    """Microseconds since 1970 of a time that a client wrote, ``None`` if it is none that a timestamp can hold."""
    micros = clock.parse_instant(value)
    return micros if micros is not None and MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None


def invalid(field: str, message: str) -> Fault:
    """The fault of a field that is there and wrong."""
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_INVALID_FIELD, metadata={"field": field})


def too_large(size: int) -> Fault:
    """The fault of an event over its limit."""
    metadata = {"limit": str(MAX_EVENT_BYTES), "size": str(size)}
    return TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the event is over {MAX_EVENT_BYTES} bytes", metadata=metadata)


def missing(field: str) -> str:
    """Refuses an event without a field that its type needs."""
    metadata = {"field": field}
    raise Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, f"this event type needs {field}", metadata=metadata)


def _unknown_type(kind: str | None) -> Fault:
    if not kind:
        return Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, "an event needs a type", metadata={"field": "type"})
    return Rejected(error_pb2.ERROR_REASON_UNKNOWN_EVENT_TYPE, "CDI does not know this event type", metadata={"type": kind[:40]})


def _append_of_type(parts: list[bytes], kind: str, item: ClientEvent) -> None:
    if kind in ("page", "screen"):
        if item.name:
            _append_name(parts, wire.NAME, "name", item.name)
        if item.category:
            _append_name(parts, wire.CATEGORY, "category", item.category)
    elif kind == "group":
        _append_id(parts, wire.GROUP_ID, "groupId", _identifier("groupId", item.group_id) or missing("groupId"))
    elif kind == "alias":
        _append_id(parts, wire.PREVIOUS_ID, "previousId", _identifier("previousId", item.previous_id) or missing("previousId"))
        if not _identifier("userId", item.user_id):
            missing("userId")
    else:
        _append_name(parts, wire.SCHEMA_URI, "schemaUri", item.schema_uri or missing("schemaUri"))
        if item.event or item.name:
            _append_name(parts, wire.NAME, "name", item.event or item.name or "")


def _identifier(field: str, value: Identifier) -> str:
    """An id as text: numbers in their shortest form, absent as the empty string."""
    if isinstance(value, str):
        # Postgres cannot store it in text.
        if "\0" in value:
            raise invalid(field, "an id cannot hold U+0000")
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_IN_DOUBLE:
        return str(int(value))
    return str(value)


def _append_id(parts: list[bytes], to: wire.Field, field: str, value: Identifier) -> str:
    text = _identifier(field, value)
    if len(text) > MAX_ID_LENGTH:
        raise invalid(field, f"an id has at most {MAX_ID_LENGTH} characters")
    parts += to.of(text.encode())
    return text


def _append_name(parts: list[bytes], to: wire.Field, field: str, text: str) -> None:
    if len(text) > MAX_NAME_LENGTH or "\0" in text:
        raise invalid(field, f"a name has at most {MAX_NAME_LENGTH} characters and no U+0000")
    parts += to.of(text.encode())


def _append_object(parts: list[bytes], to: wire.Field, field: str, raw: msgspec.Raw) -> None:
    text = bytes(raw)
    if text[0] != _OPENING_BRACE:
        if text == b"null":
            return
        raise invalid(field, "an object is expected")
    length = len(text)
    if length > MAX_EVENT_BYTES:
        raise too_large(length)
    if length > 2 * MAX_NESTING and json_text.too_deep(text):
        metadata = {"limit": str(MAX_NESTING)}
        raise Rejected(error_pb2.ERROR_REASON_NESTING_TOO_DEEP, f"{field} is nested too deep", metadata=metadata)
    parts += to.of(text)


def _time(field: str, value: Time) -> int:
    micros = instant(value)
    if micros is None:
        raise invalid(field, "an ISO 8601 time or a number of seconds or milliseconds is expected")
    return micros
