"""The rules of an event's fields, each appending what passed to the serialized event. ``admit`` calls them in order.

Every function raises a ``Fault`` for what breaks a rule; the fault's metadata name the field in the client's spelling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2
from cdi_collector.domain import wire
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Identifier, Instant
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_EVENT_BYTES, MAX_ID_LENGTH, MAX_NAME_LENGTH
from cdi_kernel.clock import correct_skew, parse_instant
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


class _Context(msgspec.Struct):
    traits: msgspec.Raw = ABSENT


_decode_context: Final = msgspec.json.Decoder(_Context).decode
_TYPE_FIELDS: Final = {name: wire.TYPE + wire.size(number) for name, number in TYPES.items()}
_EXACT_IN_DOUBLE: Final = 2**53
_OPENING_BRACE: Final = ord("{")
# The heads of fields whose length has a limit within the table.
_MESSAGE_ID: Final = wire.MESSAGE_ID.heads
_USER_ID: Final = wire.USER_ID.heads
_ANONYMOUS_ID: Final = wire.ANONYMOUS_ID.heads
_NAME: Final = wire.NAME.heads
# The heads of objects, whose length has none.
_PROPERTIES: Final = wire.PROPERTIES.heads
_TRAITS: Final = wire.TRAITS.heads
_CONTEXT: Final = wire.CONTEXT.heads
_INTEGRATIONS: Final = wire.INTEGRATIONS.heads


def message_id(item: ClientEvent) -> str:
    """The client's id of the event; empty if it has none."""
    given = item.message_id
    if given is None or given == "":
        return ""
    if given.__class__ is str and len(given) <= MAX_MESSAGE_ID_LENGTH and "\0" not in given:
        return given
    text = _id("messageId", given)
    if len(text) > MAX_MESSAGE_ID_LENGTH:
        metadata = {"limit": str(MAX_MESSAGE_ID_LENGTH)}
        raise Rejected(error_pb2.ERROR_REASON_MESSAGE_ID_TOO_LONG, "the message id is too long", metadata=metadata)
    return text


def append_subject(parts: list[bytes], item: ClientEvent, message_id: str) -> str:
    """Type, ids and names. Returns what the partition is made from: the anonymous id, else the user id.

    Args:
        parts: of the event.
        item: the event.
        message_id: the client's, or one made for it.
    """
    kind = item.type
    if kind is None or (type_field := _TYPE_FIELDS.get(kind)) is None:
        raise _unknown_type(kind)
    encoded = message_id.encode()
    parts += (type_field, _MESSAGE_ID[len(encoded)], encoded)
    person = ""
    # 0 is an id too: only None and the empty string mean absent.
    if (user_id := item.user_id) or (user_id is not None and user_id != ""):
        person = _id("userId", user_id)
        encoded = person.encode()
        parts += (_USER_ID[len(encoded)], encoded)
    if (anonymous_id := item.anonymous_id) or (anonymous_id is not None and anonymous_id != ""):
        person = _id("anonymousId", anonymous_id)
        encoded = person.encode()
        parts += (_ANONYMOUS_ID[len(encoded)], encoded)
    if kind == "track":
        encoded = _name("event", item.event).encode()
        parts += (_NAME[len(encoded)], encoded)
    elif kind != "identify":
        _append_of_type(parts, kind, item)
    if not person:
        raise Rejected(error_pb2.ERROR_REASON_MISSING_IDENTITY, "an event needs a userId or an anonymousId")
    return person


def append_times(parts: list[bytes], item: ClientEvent, received_us: int, sent_us: int | None) -> None:
    """Original and event time, and the sent time if the event has its own.

    SDKs send the original time as ``timestamp``. Only a client that gives both names wants ``timestamp`` taken as it is
    (reference: Segment's clock correction).

    Args:
        parts: of the event.
        item: the event.
        received_us: when the request came.
        sent_us: when the client sent the request; an event's own ``sentAt`` wins.
    """
    if item.sent_at is not None:
        own_us = parse_instant(item.sent_at)
        sent_us = own_us if own_us is not None else sent_us
        if sent_us is not None:
            parts += (wire.SENT_TIME, wire.timestamp(sent_us))
    given_us = None
    if (given := item.timestamp) is not None and (given_us := parse_instant(given)) is None:
        raise _no_time("timestamp")
    if item.original_timestamp is None:
        original_us = given_us
        event_us = correct_skew(received_us, original_us, sent_us)
    else:
        given = item.original_timestamp
        if (original_us := given if given.__class__ is Instant else parse_instant(given)) is None:
            raise _no_time("originalTimestamp")
        event_us = correct_skew(received_us, original_us, sent_us) if given_us is None else given_us
    event_time = wire.timestamp(event_us)
    if original_us is None:
        parts += (wire.EVENT_TIME, event_time)
    else:
        original_time = event_time if original_us == event_us else wire.timestamp(original_us)
        parts += (wire.ORIGINAL_TIME, original_time, wire.EVENT_TIME, event_time)


def append_objects(parts: list[bytes], item: ClientEvent) -> None:
    """Properties, traits, context and integrations: the client's bytes.

    RudderStack's clients write the traits of an identify into its context alone. Then they are its traits, as for identity.
    """
    # A length outside the table, and what is no object, is for ``_append_unusual``.
    if (raw := item.properties) is not ABSENT:
        text = bytes(raw)
        if text[0] == _OPENING_BRACE and len(text) < wire.TABLE_SIZE:
            parts += (_PROPERTIES[len(text)], text)
        else:
            _append_unusual(parts, wire.PROPERTIES, "properties", text)
    if (raw := item.traits) is not ABSENT:
        text = bytes(raw)
        if text[0] == _OPENING_BRACE and len(text) < wire.TABLE_SIZE:
            parts += (_TRAITS[len(text)], text)
        else:
            _append_unusual(parts, wire.TRAITS, "traits", text)
    elif item.type == "identify":
        _append_traits_of_context(parts, bytes(item.context))
    if (raw := item.context) is not ABSENT:
        text = bytes(raw)
        if text[0] == _OPENING_BRACE and len(text) < wire.TABLE_SIZE:
            parts += (_CONTEXT[len(text)], text)
        else:
            _append_unusual(parts, wire.CONTEXT, "context", text)
    if (raw := item.integrations) is not ABSENT:
        text = bytes(raw)
        if text[0] == _OPENING_BRACE and len(text) < wire.TABLE_SIZE:
            parts += (_INTEGRATIONS[len(text)], text)
        else:
            _append_unusual(parts, wire.INTEGRATIONS, "integrations", text)


def invalid(field: str, message: str) -> Fault:
    """The fault of a field that is there and wrong."""
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_INVALID_FIELD, metadata={"field": field})


def too_large(size: int) -> Fault:
    """The fault of an event over its limit."""
    metadata = {"limit": str(MAX_EVENT_BYTES), "size": str(size)}
    return TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the event is over {MAX_EVENT_BYTES} bytes", metadata=metadata)


def too_many(count: int) -> Fault:
    """The fault of a request with more than ``MAX_BATCH_EVENTS``."""
    metadata = {"limit": str(MAX_BATCH_EVENTS), "size": str(count)}
    return TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the batch has more than {MAX_BATCH_EVENTS} events", metadata=metadata)


def _missing(field: str) -> Fault:
    metadata = {"field": field}
    return Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, f"this event type needs {field}", metadata=metadata)


def _unknown_type(kind: str | None) -> Fault:
    if not kind:
        return Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, "an event needs a type", metadata={"field": "type"})
    return Rejected(error_pb2.ERROR_REASON_UNKNOWN_EVENT_TYPE, "CDI does not know this event type", metadata={"type": kind[:40]})


def _append_of_type(parts: list[bytes], kind: str, item: ClientEvent) -> None:
    if kind in ("page", "screen"):
        if item.name:
            parts += wire.NAME.of(_name("name", item.name).encode())
        if item.category:
            parts += wire.CATEGORY.of(_name("category", item.category).encode())
    elif kind == "group":
        parts += wire.GROUP_ID.of(_needed("groupId", item.group_id).encode())
    elif kind == "alias":
        _needed("userId", item.user_id)
        parts += wire.PREVIOUS_ID.of(_needed("previousId", item.previous_id).encode())
    else:
        parts += wire.SCHEMA_URI.of(_name("schemaUri", item.schema_uri).encode())
        if item.event or item.name:
            parts += wire.NAME.of(_name("name", item.event or item.name).encode())


def _id(field: str, value: Identifier) -> str:
    """An id as text, numbers in their shortest form."""
    text = value if isinstance(value, str) else _number(value)
    # Postgres cannot store U+0000 in text.
    if len(text) > MAX_ID_LENGTH or "\0" in text:
        raise invalid(field, f"an id has at most {MAX_ID_LENGTH} characters and no U+0000")
    return text


def _number(value: float | None) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_IN_DOUBLE:
        return str(int(value))
    return str(value)


def _needed(field: str, value: Identifier) -> str:
    if value is None or value == "":
        raise _missing(field)
    return _id(field, value)


def _name(field: str, text: str | None) -> str:
    if not text:
        raise _missing(field)
    if len(text) > MAX_NAME_LENGTH or "\0" in text:
        raise invalid(field, f"a name has at most {MAX_NAME_LENGTH} characters and no U+0000")
    return text


def _append_unusual(parts: list[bytes], to: wire.Field, field: str, text: bytes) -> None:
    if text[0] == _OPENING_BRACE:
        parts += to.of(text)
    elif text != b"null":
        raise invalid(field, "an object is expected")


def _append_traits_of_context(parts: list[bytes], context: bytes) -> None:
    if b'"traits"' not in context:
        return
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        traits = bytes(_decode_context(context).traits)
        if len(traits) > len(b"{}") and traits[0] == _OPENING_BRACE:
            parts += wire.TRAITS.of(traits)


def _no_time(field: str) -> Fault:
    return invalid(field, "an ISO 8601 time or a number of seconds or milliseconds is expected")
