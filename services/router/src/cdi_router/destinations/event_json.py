"""The JSON object that destinations get for an event.

Names follow the protocol of the SDKs, so that a receiver that knows their webhooks knows this one. ``properties``, ``traits``, ``context``
and ``integrations`` are the client's own bytes, spliced in without being decoded. Members without a value are left out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US

TYPES: Final[dict[int, str]] = {value: name.removeprefix("EVENT_TYPE_").lower() for name, value in event_pb2.EventType.items() if value}
"""Public spelling of the event types."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder()


class _Enrichments(msgspec.Struct, omit_defaults=True, rename="camel"):
    user_agent: dict[str, object] | None = None
    campaign: dict[str, object] | None = None
    referrer: dict[str, object] | None = None
    geo: dict[str, object] | None = None
    email_quality: dict[str, object] | None = None


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
    timestamp: datetime | None = None
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    received_at: datetime | None = None
    properties: msgspec.Raw | None = None
    traits: msgspec.Raw | None = None
    context: msgspec.Raw | None = None
    integrations: msgspec.Raw | None = None
    source_id: str = ""
    workspace_id: str = ""
    schema: str = ""
    consent: _Consent | None = None
    enrichments: _Enrichments | None = None


def event_json(event: Event) -> bytes:
    """The object as JSON bytes. Total: what cannot be written is left out."""
    track = event.type in (event_pb2.EVENT_TYPE_TRACK, event_pb2.EVENT_TYPE_SELF_DESCRIBING)
    return _encoder.encode(
        _Event(
            message_id=event.message_id,
            type=TYPES.get(event.type, ""),
            event=event.name if track else "",
            name="" if track else event.name,
            category=event.category,
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            group_id=event.group_id,
            previous_id=event.previous_id,
            profile_id=event.identity.profile_id,
            timestamp=_moment(event.event_time) if event.HasField("event_time") else None,
            original_timestamp=_moment(event.original_time) if event.HasField("original_time") else None,
            sent_at=_moment(event.sent_time) if event.HasField("sent_time") else None,
            received_at=_moment(event.received_time) if event.HasField("received_time") else None,
            properties=_raw(event.properties),
            traits=_raw(event.traits),
            context=_raw(event.context),
            integrations=_raw(event.integrations),
            source_id=event.source_id,
            workspace_id=event.workspace_id,
            schema=event.schema_uri,
            consent=_consent(event) if event.HasField("consent") else None,
            enrichments=_enrichments(event) if event.HasField("enrichments") else None,
        )
    )


def _raw(json: bytes) -> msgspec.Raw | None:
    return msgspec.Raw(json) if json else None


def _moment(instant: Timestamp) -> datetime | None:
    micros = instant.seconds * 1_000_000 + instant.nanos // 1_000
    return _EPOCH + timedelta(microseconds=micros) if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None


def _consent(event: Event) -> _Consent:
    consent = event.consent
    return _Consent(list(consent.granted_purposes), list(consent.decision_ids))


def _enrichments(event: Event) -> _Enrichments:
    return _Enrichments(**{field.name: _members(value) for field, value in event.enrichments.ListFields()})


def _members(message: object) -> dict[str, object]:
    """The set fields of a flat message, by their JSON names."""
    return {field.json_name: value for field, value in message.ListFields()}  # type: ignore[attr-defined]
