"""Whose a stored event is."""

from __future__ import annotations

from cdi.event.v1.event_pb2 import Event


def ids_of(event: Event) -> set[tuple[str, str]]:
    """All ids by which an event names its person: type and value."""
    ids = {("user_id", event.user_id), ("anonymous_id", event.anonymous_id), ("profile_id", event.identity.profile_id)}
    ids |= {(kind, event.previous_id) for kind in ("user_id", "anonymous_id")}
    ids |= {(each.type, each.value) for each in event.external_ids}
    return {(kind, value) for kind, value in ids if value}
