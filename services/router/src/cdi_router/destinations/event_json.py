"""The JSON object that destinations get for an event.

Names follow the protocol of the SDKs, so that a receiver that knows their webhooks knows this one. ``properties``, ``traits``, ``context``
and ``integrations`` are the client's own bytes and ``profileTraits`` are what identity chose, all spliced in without being decoded.
Members without a value are left out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US

TYPES: Final[dict[int, str]] = {value: name.removeprefix("EVENT_TYPE_").lower() for name, value in event_pb2.EventType.items() if value}
"""Public spelling of the event types."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED_EVENT: Final = frozenset({event_pb2.EVENT_TYPE_TRACK, event_pb2.EVENT_TYPE_SELF_DESCRIBING})
_encoder = msgspec.json.Encoder()


class _Consent(msgspec.Struct, rename="camel"):
    granted_purposes: list[str]
    decision_ids: list[str]


class _Event(msgspec.Struct, omit_defaults=True, rename="camel"):
    message_id: str
    type: str
    event: str = ""
    name: str = ""
    category: str = ""
    user_id: str = ""
    anonymous_id: str = ""
    group_id: str = ""
    previous_id: str = ""
    profile_id: str = ""
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    received_at: str | None = None
    properties: msgspec.Raw | None = None
    traits: msgspec.Raw | None = None
    context: msgspec.Raw | None = None
    integrations: msgspec.Raw | None = None
    source_id: str = ""
    workspace_id: str = ""
    schema: str = ""
    consent: _Consent | None = None
    enrichments: msgspec.Raw | None = None
    profile_traits: msgspec.Raw | None = None


def event_json(event: Event) -> bytes:
    """The object as JSON bytes. Total: what cannot be written is left out."""
    kind = event.type
    track = kind in _NAMED_EVENT
    identity = event.identity
    return _encoder.encode(
        _Event(
            event.message_id,
            TYPES.get(kind, ""),
            event.name if track else "",
            "" if track else event.name,
            event.category,
            event.user_id,
            event.anonymous_id,
            event.group_id,
            event.previous_id,
            identity.profile_id,
            _moment(event.event_time) if event.HasField("event_time") else None,
            _moment(event.original_time) if event.HasField("original_time") else None,
            _moment(event.sent_time) if event.HasField("sent_time") else None,
            _moment(event.received_time) if event.HasField("received_time") else None,
            _raw(event.properties),
            _raw(event.traits),
            _raw(event.context),
            _raw(event.integrations),
            event.source_id,
            event.workspace_id,
            event.schema_uri,
            _consent(event.consent) if event.HasField("consent") else None,
            _enrichments(event.enrichments.SerializeToString()) if event.HasField("enrichments") else None,
            _raw(identity.traits),
        )
    )


def _raw(json: bytes) -> msgspec.Raw | None:
    return msgspec.Raw(json) if json else None


def _moment(instant: Timestamp) -> str | None:
    """RFC 3339 with as many digits as needed, to the microsecond; ``None`` for an instant that no calendar has."""
    second = _second(instant.seconds)
    if not instant.nanos or second is None:
        return f"{second}Z" if second else None
    micros = instant.nanos // 1_000
    return f"{second}.{micros // 1_000:03d}Z" if micros % 1_000 == 0 else f"{second}.{micros:06d}Z"


@lru_cache(4_096)
def _second(seconds: int) -> str | None:
    """Events of one batch happened, were sent and were received within few seconds."""
    if not MIN_INSTANT_US <= seconds * 1_000_000 <= MAX_INSTANT_US:
        return None
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def _consent(consent: event_pb2.ConsentResult) -> _Consent:
    return _Consent(list(consent.granted_purposes), list(consent.decision_ids))


@lru_cache(4_096)
def _enrichments(serialized: bytes) -> msgspec.Raw:
    """Few browsers, countries and campaigns make up most events, and walking a message by its descriptor is slow."""
    enrichments = event_pb2.Enrichments.FromString(serialized)
    parts = {part.json_name: _members(value) for part, value in enrichments.ListFields()}
    return msgspec.Raw(_encoder.encode(parts))


def _members(message: Message) -> dict[str, object]:
    """The set fields of a flat message, by their JSON names."""
    return {field.json_name: value for field, value in message.ListFields()}
