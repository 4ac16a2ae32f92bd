"""PostHog's events as client events, in Segment's words and without loss (reference: PostHog's capture API and its SDKs)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from cdi_collector.domain import posthog_context
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Identifier, Item, nesting_fault
from cdi_collector.domain.json_members import Members, identifier, members_of, object_of, scalar, text, tolerated_id, tolerated_text
from cdi_collector.faults import malformed
from cdi_kernel.clock import parse_instant
from cdi_kernel.faults import Fault

IDENTIFY: Final = "$identify"

TYPES: Final = {
    IDENTIFY: "identify",
    "$set": "identify",
    "$set_once": "identify",
    "$create_alias": "alias",
    "$merge_dangerously": "alias",
    "$groupidentify": "group",
    "$pageview": "page",
    "$screen": "screen",
}
"""What PostHog's own event names are; every other name is a track's."""

_COOKIELESS: Final = "$posthog_cookieless"
"""The distinct id that posthog-js gives everybody while it may not remember anybody."""

_RANDOM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""What posthog-python makes up for a group whose person is not given."""

_MAX_OFFSET_MS: Final = 10 * 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Capture:
    """An event as PostHog's SDKs send it, read one level deep.

    Attributes:
        members: of the event.
        properties: the members of its ``properties``.
    """

    members: Members
    properties: Members

    @property
    def key(self) -> str | None:
        """The write key that the event carries itself; ``None`` if it has none."""
        for raw in (self.members.get("api_key"), self.members.get("token"), self.members.get("$token"), self.properties.get("token")):
            if (key := tolerated_text(raw)) is not None:
                return key
        return None


def read_capture(event: bytes | msgspec.Raw) -> Capture | Fault:
    """Checked JSON as an event, or why it is none."""
    if (members := members_of(event)) is None:
        return malformed("the event is no JSON object")
    try:
        return Capture(members, object_of("properties", members.get("properties")))
    except Fault as fault:
        return fault


def translated(capture: Capture, key: str | None, sent_us: int | None, unnamed: str | None) -> Item:
    """The event in Segment's words, or why it is none.

    Args:
        capture: the event.
        key: the request's write key, which is left out of the properties.
        sent_us: when the client sent the request, by its clock; ``None`` if it did not say.
        unnamed: the name of an event that has none; ``None`` where every event needs one.
    """
    try:
        event = _translated(capture, key, sent_us, unnamed)
    except Fault as fault:
        return fault
    return nesting_fault(event) or event


def _translated(capture: Capture, key: str | None, sent_us: int | None, unnamed: str | None) -> ClientEvent:
    members, properties = capture.members, capture.properties
    name = text("event", members.get("event")) or unnamed
    item = ClientEvent(type=TYPES.get(name or "", "track"), message_id=identifier("uuid", members.get("uuid")))
    if item.type == "track":
        item.event = name
    elif item.type == "screen":
        item.name = tolerated_text(properties.get("$screen_name"))
    elif item.type == "group":
        item.group_id = identifier("$group_key", properties.get("$group_key"))
        item.traits = properties.get("$group_set", ABSENT)
    _set_person(item, name, capture)
    _set_times(item, capture, sent_us)
    traits = posthog_context.merged("$set", members, properties)
    if item.type == "identify":
        item.traits = traits
    item.properties = posthog_context.properties_of(members, properties, key)
    item.context = posthog_context.context_of(item.type, name, members, properties, traits)
    return item


def _set_person(item: ClientEvent, name: str | None, capture: Capture) -> None:
    """Whose event it is: PostHog's one distinct id is a user id, or the id of somebody who is not known yet."""
    properties = capture.properties
    distinct = _distinct_id(capture)
    if item.type == "alias":
        other = identifier("alias", properties.get("alias"))
        item.previous_id, item.user_id = (other, distinct) if name == "$merge_dangerously" else (distinct, other)
    elif distinct == _COOKIELESS:
        # Taken for an id it would make one person of all who have it.
        item.anonymous_id = item.message_id
    elif _is_known(item, distinct, properties):
        item.user_id = distinct
        before = tolerated_id(properties.get("$anon_distinct_id")) or tolerated_id(properties.get("$device_id"))
        item.anonymous_id = before if before != distinct else None
    else:
        item.anonymous_id = distinct


def _is_known(item: ClientEvent, distinct: Identifier, properties: Members) -> bool:
    """Whether the distinct id is the client's own id of a person.

    What the SDK says comes first. Server SDKs say nothing: their ids are the client's own, unless the event is to have no person, or is
    about a group, whose person they invent when none is given.
    """
    stated = scalar(properties.get("$is_identified"))
    if item.type == "identify" or stated is True:
        return True
    if stated is False:
        return False
    if distinct is not None and tolerated_id(properties.get("$user_id")) == distinct:
        return True
    if scalar(properties.get("$process_person_profile")) is False:
        return False
    if item.type == "group" and isinstance(distinct, str):
        invented = f"${tolerated_text(properties.get('$group_type'))}_{item.group_id}"
        return distinct != invented and _RANDOM.fullmatch(distinct) is None
    return tolerated_id(properties.get("$device_id")) != distinct


def _distinct_id(capture: Capture) -> Identifier:
    for raw in (capture.members.get("distinct_id"), capture.members.get("$distinct_id"), capture.properties.get("distinct_id")):
        distinct = identifier("distinct_id", raw)
        if distinct is not None and distinct != "":
            return distinct
    return None


def _set_times(item: ClientEvent, capture: Capture, sent_us: int | None) -> None:
    item.timestamp = identifier("timestamp", capture.members.get("timestamp"))
    item.sent_at = identifier("sent_at", capture.members.get("sent_at"))
    if item.timestamp is not None:
        if scalar(capture.properties.get("$ignore_sent_at")) is True:
            # Given under both names, a time is taken as it is.
            item.original_timestamp = item.timestamp
        return
    if item.sent_at is not None and (own_us := parse_instant(item.sent_at)) is not None:
        sent_us = own_us
    offset_ms = scalar(capture.members.get("offset"))
    if sent_us is not None and isinstance(offset_ms, int) and offset_ms is not True and 0 < offset_ms < _MAX_OFFSET_MS:
        item.timestamp = sent_us / 1_000 - offset_ms
