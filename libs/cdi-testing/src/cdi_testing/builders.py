"""Builders of valid events: a test states only the fields that matter to it.

Every event gets a message id of its own and the partition that the collector would give it.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1.event_pb2 import (
    EVENT_TYPE_ALIAS,
    EVENT_TYPE_GROUP,
    EVENT_TYPE_IDENTIFY,
    EVENT_TYPE_PAGE,
    EVENT_TYPE_SCREEN,
    EVENT_TYPE_TRACK,
    Event,
    EventBatch,
)
from cdi_kernel import topology

WORKSPACE: Final = "acme"
SOURCE: Final = "web"
EVENT_TIME: Final = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
"""When built events happened, unless the test says otherwise."""

Json = Mapping[str, Any]


def message_id() -> str:
    """A message id that no other event has."""
    return f"test-{uuid.uuid4().hex}"


def timestamp(instant: datetime) -> Timestamp:
    """An aware instant as protobuf has it."""
    result = Timestamp()
    result.FromDatetime(instant)
    return result


def event(
    *,
    properties: Json | None = None,
    traits: Json | None = None,
    context: Json | None = None,
    integrations: Json | None = None,
    at: datetime = EVENT_TIME,
    partitions: int = topology.DEFAULT_PARTITIONS,
    **fields: Any,
) -> Event:
    """A valid event as the collector publishes it: by default a track of a known person.

    Args:
        properties: encoded to the JSON bytes that the event carries; likewise traits, context and integrations.
        traits: see properties.
        context: see properties.
        integrations: see properties.
        at: event, sent and received time.
        partitions: partitions of the installation.
        **fields: fields of ``cdi.event.v1.Event``, which win over every default.
    """
    values: dict[str, Any] = {
        "workspace_id": WORKSPACE,
        "source_id": SOURCE,
        "message_id": message_id(),
        "type": EVENT_TYPE_TRACK,
        "original_time": timestamp(at),
        "sent_time": timestamp(at),
        "received_time": timestamp(at),
        "event_time": timestamp(at),
    }
    if not fields.keys() & {"user_id", "anonymous_id"}:
        values["user_id"] = "user-1"
    if fields.get("type", EVENT_TYPE_TRACK) == EVENT_TYPE_TRACK:
        values["name"] = "Product Viewed"
    texts = {"properties": properties, "traits": traits, "context": context, "integrations": integrations}
    values |= {name: json.dumps(text).encode() for name, text in texts.items() if text is not None}
    built = Event(**(values | fields))
    if "partition" not in fields:
        key = built.anonymous_id or built.user_id or built.message_id
        built.partition = topology.partition_of(built.workspace_id, key, partitions)
    return built


def track(name: str = "Product Viewed", **fields: Any) -> Event:
    """A track event; see ``event``."""
    return event(type=EVENT_TYPE_TRACK, name=name, **fields)


def identify(**fields: Any) -> Event:
    """An identify event, with an e-mail address unless the test gives traits; see ``event``."""
    fields.setdefault("traits", {"email": "ada@example.com"})
    return event(type=EVENT_TYPE_IDENTIFY, **fields)


def page(name: str = "Home", **fields: Any) -> Event:
    """A page event; see ``event``."""
    fields.setdefault("properties", {"url": "https://shop.example/", "path": "/"})
    return event(type=EVENT_TYPE_PAGE, name=name, **fields)


def screen(name: str = "Start", **fields: Any) -> Event:
    """A screen event; see ``event``."""
    return event(type=EVENT_TYPE_SCREEN, name=name, **fields)


def group(group_id: str = "account-1", **fields: Any) -> Event:
    """A group event; see ``event``."""
    return event(type=EVENT_TYPE_GROUP, group_id=group_id, **fields)


def alias(previous_id: str = "user-0", **fields: Any) -> Event:
    """An alias event; see ``event``."""
    return event(type=EVENT_TYPE_ALIAS, previous_id=previous_id, **fields)


def event_batch(events: Iterable[Event]) -> EventBatch:
    """One bus message; the caller sees to it that its events share a partition."""
    return EventBatch(events=events)


def http_message(kind: str = "track", **fields: Any) -> dict[str, Any]:
    """The JSON object that an SDK would POST to ``/v1/<kind>`` or put into a batch.

    Args:
        kind: track, identify, page, screen, group or alias.
        **fields: members in the protocol's own spelling (``userId``, ``messageId``), which win over every default.
    """
    values: dict[str, Any] = {"type": kind, "messageId": message_id(), "timestamp": EVENT_TIME.isoformat()}
    if not fields.keys() & {"userId", "anonymousId"}:
        values["userId"] = "user-1"
    if kind == "track":
        values["event"] = "Product Viewed"
    if kind == "group":
        values["groupId"] = "account-1"
    if kind == "alias":
        values["previousId"] = "user-0"
    return values | fields
