"""CloudEvents 1.0 as client events (source: the CloudEvents specification, its JSON format and its HTTP binding).

A CloudEvent is a track named by its ``type``. Its attributes, extensions too, are kept in ``context.cloudevents``; what data is no JSON
object becomes the property ``data``, or ``data_base64`` where it is no JSON at all, as the JSON format spells them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Item, nesting_fault
from cdi_collector.domain.event_fields import invalid, too_many
from cdi_collector.domain.json_members import Members, checked_whole, identifier, is_absent, members_of, text
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_NESTING
from cdi_collector.faults import malformed
from cdi_kernel.faults import Fault, Rejected
from cdi_kernel.ids import MAX_MESSAGE_ID_LENGTH

HEADER: Final = b"ce-"
"""What the headers of an event's attributes begin with, in binary mode."""

_VERSION: Final = "1.0"
_DATA: Final = ("data", "data_base64")
_ELSEWHERE: Final = frozenset({"type", "time", *_DATA})
"""Attributes that have a place of their own."""

_LEVELS: Final = MAX_NESTING + 2
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_structured(body: bytes) -> ClientEvent:
    """The event of a body in structured mode.

    Raises:
        Fault: it is none, and why.
    """
    whole, sound = checked_whole(body, _LEVELS)
    item = _item(whole, sound)
    if isinstance(item, Fault):
        raise item
    return item


def read_batch(body: bytes) -> tuple[Sequence[msgspec.Raw], Sequence[Item]]:
    """The elements of a body in batched mode, as they came, and what each is.

    Raises:
        InvalidArgument: the body is not a JSON array.
        TooLarge: it has too many elements.
    """
    whole, sound = checked_whole(body, _LEVELS + 1)
    try:
        raws = _decode_items(whole)
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("a JSON array is expected") from error
    if len(raws) > MAX_BATCH_EVENTS:
        raise too_many(len(raws))
    return raws, [_item(raw, sound) for raw in raws]


def read_binary(headers: Mapping[bytes, bytes], body: bytes) -> ClientEvent:
    """The event of a request in binary mode.

    Args:
        headers: of the request, by lower-case name.
        body: the data.

    Raises:
        Fault: it is none, and why.
    """
    attributes: dict[str, object] = {
        name[len(HEADER) :].decode("latin-1"): _header_value(value) for name, value in headers.items() if name.startswith(HEADER)
    }
    for reserved in _DATA:
        attributes.pop(reserved, None)
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type:
        attributes["datacontenttype"] = content_type
    members = members_of(msgspec.json.encode(attributes)) or {}
    event = _translated(members, _binary_data(content_type, body))
    if (fault := nesting_fault(event)) is not None:
        raise fault
    return event


def _item(payload: bytes | msgspec.Raw, sound: bool) -> Item:
    if not sound and (fault := json_text.check(bytes(payload))) is not None:
        return fault
    if (members := members_of(payload)) is None:
        return malformed("a CloudEvent is a JSON object")
    try:
        event = _translated(members, _structured_data(members))
    except Fault as fault:
        return fault
    return nesting_fault(event) or event


def _translated(members: Members, properties: msgspec.Raw) -> ClientEvent:
    if (version := _required(members, "specversion")) != _VERSION:
        raise invalid("specversion", f"CloudEvents {_VERSION} is expected")
    event_id, source = _required(members, "id"), _required(members, "source")
    attributes = {name: raw for name, raw in members.items() if name not in _ELSEWHERE and not is_absent(raw)}
    user_id = identifier("userid", members.get("userid"))
    anonymous_id = identifier("anonymousid", members.get("anonymousid"))
    if user_id in (None, "") and anonymous_id in (None, ""):
        # An event is somebody's: of whom it is about, else of what reports it.
        user_id = text("subject", members.get("subject")) or None
        anonymous_id = None if user_id else source
    return ClientEvent(
        type="track",
        event=_required(members, "type"),
        message_id=_message_id(source, event_id),
        user_id=user_id,
        anonymous_id=anonymous_id,
        original_timestamp=text("time", members.get("time")) or None,
        properties=properties,
        context=msgspec.Raw(msgspec.json.encode({"cloudevents": attributes | {"specversion": version}})),
    )


def _message_id(source: str, event_id: str) -> str:
    """One text for the two that name an event together.

    A URI reference holds no blank, so one between them keeps different pairs apart; what is too long, or holds one after all, is hashed.
    """
    joined = f"{source} {event_id}"
    if len(joined) <= MAX_MESSAGE_ID_LENGTH and " " not in source:
        return joined
    return hashlib.sha256(f"{len(source)} {joined}".encode()).hexdigest()


def _required(members: Members, name: str) -> str:
    if not (value := text(name, members.get(name))):
        raise Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, f"a CloudEvent needs {name}", metadata={"field": name})
    return value


def _structured_data(members: Members) -> msgspec.Raw:
    data, encoded = members.get("data"), members.get("data_base64")
    if data is not None and encoded is not None:
        raise invalid("data", "data and data_base64 exclude each other")
    if encoded is not None:
        text("data_base64", encoded)
        return msgspec.Raw(msgspec.json.encode({"data_base64": encoded}))
    return ABSENT if data is None else _as_properties(data)


def _binary_data(content_type: str, body: bytes) -> msgspec.Raw:
    if not body:
        return ABSENT
    declared = content_type.partition(";")[0].strip().lower()
    if declared and not declared.endswith(("/json", "+json")):
        return _as_base64(body)
    whole, fault = json_text.checked(body)
    if fault is None:
        return _as_properties(msgspec.Raw(whole.strip()))
    if declared:
        raise fault
    return _as_base64(body)


def _as_base64(body: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"data_base64": base64.b64encode(body).decode()}))


def _as_properties(data: msgspec.Raw) -> msgspec.Raw:
    if json_text.is_object(bytes(data)):
        return data
    return msgspec.Raw(msgspec.json.encode({"data": data}))


def _header_value(value: bytes) -> str:
    """An attribute as the HTTP binding writes it: perhaps quoted, and percent-encoded where it is not ASCII."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = value[1:-1].replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    return unquote_to_bytes(value).decode("utf-8", "replace")
