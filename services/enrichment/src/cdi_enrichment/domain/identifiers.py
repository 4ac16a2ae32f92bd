"""The identifiers that an event brings for the identity graph.

Source: Segment's table of default identifiers (Unify, external ids): ``user_id``, ``email``, ``anonymous_id``; ``ios.id``, ``ios.idfa``,
``ios.push_token`` and the same of Android from ``context.device``; ``ga_client_id`` from
``context.integrations["Google Analytics"].clientId``; ``braze_id`` from ``context.Braze.braze_id``; ``cross_domain_id`` from
``context.traits.crossDomainId``, where analytics.js puts it; custom ones from ``context.externalIds`` and, by the workspace's rules, from
any member of traits, properties and context (``places``).

Differences: ``group_id`` names an account, so it would join all of the account's members: it is taken only in a workspace whose rules have
one for it; the traits of a group event are the account's; an alias's previous id counts as an ``anonymous_id``, because two user ids of one
profile would break the limit that protects from false merges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain.context import Device, EventContext, context_traits, read_email
from cdi_enrichment.domain.places import Places

MAX_IDENTIFIERS: Final = 50
"""Of one event (IdentityInput)."""

MAX_VALUE_LENGTH: Final = 500
"""Characters of an identifier; what is longer names nobody."""

_PLATFORMS: Final = ("ios", "android")


def email_of(event: event_pb2.Event, context: EventContext) -> str | None:
    """The person's e-mail address: from traits, else ``context.traits``, else properties; trimmed, in lower case.

    Raises:
        Rejected: traits or properties are no JSON object.
    """
    traits = event.traits
    given = read_email(traits, "traits") if traits and event.type != event_pb2.EVENT_TYPE_GROUP else None
    if given is None and context.traits is not None:
        given = context.traits.email
    if given is None:
        given = read_email(event.properties, "properties")
    return (given.strip().lower() or None) if given else None


def external_ids(context: EventContext) -> list[tuple[str, str]]:
    """Type (lower case) and value of ``context.externalIds`` of the collection ``users``, in their order, without repetition."""
    found: dict[tuple[str, str], None] = {}
    for given in context.external_ids or ():
        if given.type and given.id not in (None, "") and given.collection in (None, "users") and given.encoding in (None, "none"):
            found[(given.type.lower(), str(given.id))] = None
    return list(found)[:MAX_IDENTIFIERS]


def identifiers_of(
    event: event_pb2.Event, context: EventContext, email: str | None, external: Iterable[tuple[str, str]], places: Places | None = None
) -> list[tuple[str, str]]:
    """All identifiers of an event as type and value, the strongest first, without repetition; at most 50.

    Args:
        event: the event.
        context: its decoded context.
        email: from ``email_of``.
        external: from ``external_ids``.
        places: the further places of the event's workspace, if it has some.
    """
    found: list[tuple[str, str]] = []
    if user_id := event.user_id:
        found.append(("user_id", user_id))
    if email:
        found.append(("email", email))
    if anonymous_id := event.anonymous_id:
        found.append(("anonymous_id", anonymous_id))
    more = [*external]
    if (previous_id := event.previous_id) and event.type == event_pb2.EVENT_TYPE_ALIAS:
        more.insert(0, ("anonymous_id", previous_id))
    if context.device is not None:
        more.extend(_device_ids(context.device))
    if context.traits is not None or context.integrations is not None or context.braze is not None:
        more.extend(_vendor_ids(context))
    if places is not None:
        more.extend(places.identifiers(event))
    if more:
        found = list(dict.fromkeys(found + more))
    return [pair for pair in found if len(pair[1]) <= MAX_VALUE_LENGTH and "\x00" not in pair[1]][:MAX_IDENTIFIERS]


def traits_of(event: event_pb2.Event) -> bytes:
    """The traits to keep on the profile: an identify's own, or its ``context.traits``; empty for every other event."""
    if event.type != event_pb2.EVENT_TYPE_IDENTIFY:
        return b""
    return event.traits or (context_traits(event.context) if b'"traits"' in event.context else b"")


def _device_ids(device: Device) -> Iterable[tuple[str, str]]:
    platform = next((name for name in _PLATFORMS if name in (device.type or "").lower()), None)
    if platform is None:
        return
    if device.id:
        yield f"{platform}.id", device.id
    if device.advertising_id and device.ad_tracking_enabled:
        yield f"{platform}.idfa", device.advertising_id
    if device.token:
        yield f"{platform}.push_token", device.token


def _vendor_ids(context: EventContext) -> Iterable[tuple[str, str]]:
    integrations, braze, traits = context.integrations, context.braze, context.traits
    if integrations is not None and integrations.google_analytics is not None and integrations.google_analytics.client_id:
        yield "ga_client_id", integrations.google_analytics.client_id
    if braze is not None and braze.braze_id:
        yield "braze_id", braze.braze_id
    if traits is not None and traits.cross_domain_id:
        yield "cross_domain_id", traits.cross_domain_id
