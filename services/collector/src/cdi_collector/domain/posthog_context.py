"""The objects of a PostHog event: its properties as they came, and its context in Segment's names.

Nothing is lost: what is copied into the context stays in the properties, and members of the event itself that have no place in a client
event are kept in ``context.posthog``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cdi_collector.domain.client_event import ABSENT
from cdi_collector.domain.json_members import Members, members_of, object_of, scalar, tolerated_text

_SECTIONS: Final = (
    ("page", (("$current_url", "url"), ("$pathname", "path"), ("$referrer", "referrer"))),
    (
        "campaign",
        (
            ("utm_campaign", "name"),
            ("utm_source", "source"),
            ("utm_medium", "medium"),
            ("utm_term", "term"),
            ("utm_content", "content"),
        ),
    ),
    ("library", (("$lib", "name"), ("$lib_version", "version"))),
    ("os", (("$os", "name"), ("$os_name", "name"), ("$os_version", "version"))),
    (
        "device",
        (
            ("$device_id", "id"),
            ("$device_type", "type"),
            ("$device_manufacturer", "manufacturer"),
            ("$device_model", "model"),
            ("$device_name", "name"),
        ),
    ),
    ("screen", (("$screen_width", "width"), ("$screen_height", "height"))),
    ("app", (("$app_name", "name"), ("$app_version", "version"), ("$app_build", "build"), ("$app_namespace", "namespace"))),
    ("network", (("$network_wifi", "wifi"), ("$network_cellular", "cellular"), ("$network_carrier", "carrier"))),
)
_VALUES: Final = (
    ("$ip", "ip"),
    ("$raw_user_agent", "userAgent"),
    ("$browser_language", "locale"),
    ("$locale", "locale"),
    ("$timezone", "timezone"),
    ("$session_id", "sessionId"),
    ("$groups", "groups"),
)
_NOTHING: Final = (b"null", b'""', b'"$direct"')
"""Values that say nothing; the last is posthog-js's referrer of a visit without one."""

_IMPLIED: Final = frozenset({"$identify", "$create_alias", "$groupidentify", "$pageview", "$screen"})
"""Event names that their type alone brings back."""

_PLACED: Final = frozenset(
    {
        "event",
        "properties",
        "distinct_id",
        "$distinct_id",
        "uuid",
        "timestamp",
        "sent_at",
        "$set",
        "$set_once",
        "api_key",
        "token",
        "$token",
    }
)
"""Members of an event that have a place of their own."""


def properties_of(members: Members, properties: Members, key: str | None) -> msgspec.Raw:
    """The properties of an event: only the request's write key goes, and a ``$set_once`` that stands beside them comes in.

    Raises:
        InvalidArgument: that ``$set_once`` is no object.
    """
    changed = dict(properties)
    if key is not None and scalar(changed.get("token")) == key:
        del changed["token"]
    if (once := merged("$set_once", members, properties)) is not ABSENT:
        changed["$set_once"] = once
    if changed == properties:
        return members.get("properties", ABSENT)
    return msgspec.Raw(msgspec.json.encode(changed))


def context_of(kind: str | None, name: str | None, members: Members, properties: Members, traits: msgspec.Raw) -> msgspec.Raw:
    """The context of an event.

    Args:
        kind: its type, in Segment's words.
        name: its name, in PostHog's.
        members: of the event.
        properties: of the event.
        traits: what it says about its person.
    """
    context: dict[str, object] = {}
    for section, names in _SECTIONS:
        if found := {to: properties[source] for source, to in names if _says(properties, source)}:
            context[section] = found
            if section == "page" and kind == "page" and tolerated_text(properties.get("title")):
                found["title"] = properties["title"]
    context.update((to, properties[source]) for source, to in _VALUES if _says(properties, source))
    if kind != "identify" and traits is not ABSENT:
        context["traits"] = traits
    rest: dict[str, object] = {member: raw for member, raw in members.items() if member not in _PLACED}
    if kind != "track" and name not in _IMPLIED:
        rest["event"] = name
    if rest:
        context["posthog"] = rest
    return msgspec.Raw(msgspec.json.encode(context)) if context else ABSENT


def merged(name: str, members: Members, properties: Members) -> msgspec.Raw:
    """``$set`` or ``$set_once`` as one object: it may stand in the properties and beside them, where it wins.

    Raises:
        InvalidArgument: what stands beside the properties is no object. Within them it is a property like any other.
    """
    outer, inner = object_of(name, members.get(name)), members_of(properties.get(name, b"0")) or {}
    if outer and inner:
        return msgspec.Raw(msgspec.json.encode({**inner, **outer}))
    return (members if outer else properties)[name] if outer or inner else ABSENT


def _says(properties: Members, source: str) -> bool:
    raw = properties.get(source)
    return raw is not None and bytes(raw) not in _NOTHING
