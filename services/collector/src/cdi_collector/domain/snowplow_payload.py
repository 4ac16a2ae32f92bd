"""Snowplow's payloads as they travel: ``payload_data`` bodies, query strings, and self-describing JSON, plain or in base64.

An item of a payload is a flat map from parameter to text. What is no such map, or holds what cannot be read, costs its own event only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import base64_text, json_text
from cdi_collector.domain.event_fields import invalid
from cdi_collector.domain.sources import Source, SourceSnapshot
from cdi_collector.faults import malformed
from cdi_kernel.faults import Fault, InvalidArgument, Rejected

Parameters: TypeAlias = Mapping[str, str]
"""One item: tracker parameters by their names in the protocol."""

PERSONAL: Final = ("uid", "duid", "nuid", "tnuid", "sid", "vid", "fp", "ip")
"""Parameters that recognise a person; what ``SP-Anonymous`` takes away."""

_PAYLOAD_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/payload_data/"
# The body, its array, an item; and one more, since ``is_sound`` is not sure of what reaches its limit.
_LEVELS: Final = 4


class SelfDescribing(msgspec.Struct, gc=False):
    """A document that names its own schema by an Iglu URI."""

    schema: str
    data: msgspec.Raw


class _Payload(msgspec.Struct, gc=False):
    schema: str
    data: list[dict[str, str]]


class _RawPayload(msgspec.Struct, gc=False):
    schema: str
    data: list[msgspec.Raw]


_decode_payload: Final = msgspec.json.Decoder(_Payload).decode
_decode_raw_payload: Final = msgspec.json.Decoder(_RawPayload).decode
_decode_item: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_self_describing: Final = msgspec.json.Decoder(SelfDescribing).decode


def read_payload(body: bytes) -> Sequence[Parameters | Fault]:
    """The items of a ``payload_data`` body, each readable or the reason why it is not.

    Raises:
        InvalidArgument: the body as a whole is not JSON, or not a ``payload_data``.
    """
    if json_text.is_sound(body, _LEVELS):
        with contextlib.suppress(msgspec.DecodeError):
            payload = _decode_payload(body)
            _check_schema(payload.schema)
            return payload.data
    raw = _raw_payload(body)
    _check_schema(raw.schema)
    return [_item(bytes(item)) for item in raw.data]


def raw_items(body: bytes, *, anonymous: bool) -> Sequence[bytes]:
    """The items of a body that ``read_payload`` took, as bytes; without what recognises a person if ``anonymous``."""
    items = [bytes(item) for item in _raw_payload(body).data]
    return [_impersonal(item) for item in items] if anonymous else items


def assigned(items: Sequence[Parameters | Fault], sources: SourceSnapshot) -> tuple[Source, list[Parameters | Fault]]:
    """The source of a payload, and its items with a refusal in the place of each that is another's.

    The app id ``aid`` is the write key. The payload is of the source of the first one that is known; an item without one goes along, and
    so does one with another key of the same source, as when an app got a new id while a browser still kept events.

    Raises:
        Unauthenticated: no app id is known, or there is none.
        PermissionDenied: the source of the first one is switched off, and no other is known.
    """
    aids = {aid: None for item in items if not isinstance(item, Fault) and (aid := item.get("aid"))}
    found = {aid: _authenticated(aid, sources) for aid in aids or ("",)}
    source = next((known for known in found.values() if isinstance(known, Source)), None)
    if source is None:
        raise next(fault for fault in found.values() if isinstance(fault, Fault))
    return source, [item if isinstance(item, Fault) else _of_source(item, source, found) for item in items]


def without_person(parameters: Parameters) -> Parameters:
    """The parameters without those that recognise a person."""
    return {name: text for name, text in parameters.items() if name not in PERSONAL}


def self_describing(field: str, text: bytes, schema: str) -> SelfDescribing:
    """A document that a parameter holds.

    Args:
        field: the parameter, for the fault.
        text: JSON.
        schema: how the document's own schema starts.

    Raises:
        InvalidArgument: it is no JSON, not self-describing, or describes itself as something else.
    """
    text, fault = json_text.checked(text)
    if fault is not None:
        raise _within(field, fault)
    try:
        document = _decode_self_describing(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(field, f"{field} is not a self-describing JSON") from error
    if not document.schema.startswith(schema):
        raise invalid(field, f"{field} has another schema than {schema}…")
    return document


def from_base64(field: str, text: str) -> bytes:
    """What a parameter holds in base64. Raises ``InvalidArgument`` if it is none."""
    try:
        return base64_text.decoded(text.encode())
    except InvalidArgument as fault:
        raise _within(field, fault) from fault


def _within(field: str, fault: Fault) -> Fault:
    return InvalidArgument(f"{field}: {fault.message}", reason=fault.reason, metadata={**fault.metadata, "field": field})


def _authenticated(aid: str, sources: SourceSnapshot) -> Source | Fault:
    try:
        return sources.authenticate(aid)
    except Fault as fault:
        return fault


def _of_source(item: Parameters, source: Source, found: Mapping[str, Source | Fault]) -> Parameters | Fault:
    owner = found[item["aid"]] if item.get("aid") else source
    if isinstance(owner, Fault) or owner == source:
        return owner if isinstance(owner, Fault) else item
    return Rejected(error_pb2.ERROR_REASON_UNKNOWN_WRITE_KEY, "the app id is a key of another source than that of its payload")


def _raw_payload(body: bytes) -> _RawPayload:
    text, fault = json_text.checked(body)
    # A number that is out of range is the matter of its item.
    if fault is not None and fault.reason != error_pb2.ERROR_REASON_INVALID_FIELD:
        raise fault
    try:
        return _decode_raw_payload(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("the body is not a Snowplow payload_data") from error


def _check_schema(schema: str) -> None:
    if not schema.startswith(_PAYLOAD_SCHEMA):
        raise malformed("the body is not a Snowplow payload_data")


def _item(text: bytes) -> Parameters | Fault:
    if (fault := json_text.check(text)) is not None:
        return fault
    try:
        members = _decode_item(text)
    except msgspec.DecodeError:
        return malformed("an item of the payload is not an object")
    parameters: dict[str, str] = {}
    for name, raw in members.items():
        value = bytes(raw)
        if value[:1] == b'"':
            parameters[name] = _decode_text(value)
        elif value[:1] in (b"{", b"["):
            return invalid(name, "a parameter of a Snowplow event is a text")
        elif value != b"null":
            parameters[name] = value.decode()
    return parameters


def _impersonal(item: bytes) -> bytes:
    try:
        members = _decode_item(item)
    except (msgspec.DecodeError, RecursionError):
        # Who cannot be found in it cannot be taken out of it.
        return b""
    return msgspec.json.encode({name: value for name, value in members.items() if name not in PERSONAL})
