"""What peers are asked and answer, and what callers ask and get ↔ the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Final

from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.event.v1 import event_pb2
from cdi.identity.v1 import identity_service_pb2
from cdi_enrichment.domain.identifiers import identifiers_of, traits_of
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.ports import SeenEvent
from cdi_kernel.faults import InvalidArgument
from cdi_kernel.ids import fallback_profile_id

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000


def consent_request(passages: Iterable[Passage]) -> consent_service_pb2.EvaluateConsentRequest:
    """What consent needs to know of each event. Fields are set one by one: at half the cost of the constructor's arguments."""
    request = consent_service_pb2.EvaluateConsentRequest()
    add = request.inputs.add
    for passage in passages:
        event, asked = passage.event, add()
        asked.workspace_id = event.workspace_id
        asked.message_id = event.message_id
        asked.user_id = event.user_id
        asked.anonymous_id = event.anonymous_id
        asked.event_time.CopyFrom(event.event_time)
        if passage.traceparent:
            asked.traceparent = passage.traceparent
        given = passage.subject.context.consent
        if given is not None and given.category_preferences:
            for category, granted in given.category_preferences.items():
                preference = asked.preferences.add()
                preference.category = category
                preference.granted = granted
    return request


def set_consent(event: event_pb2.Event, result: consent_service_pb2.EvaluatedConsent) -> None:
    """Writes what the person agreed to. Both messages have the same fields by number; copying them one by one takes twice as long."""
    event.consent.ParseFromString(result.SerializeToString())


def identity_request(passages: Iterable[Passage]) -> identity_service_pb2.ResolveIdentitiesRequest:
    """The identifiers and traits of each event."""
    request = identity_service_pb2.ResolveIdentitiesRequest()
    add = request.inputs.add
    for passage in passages:
        event, asked = passage.event, add()
        asked.workspace_id = event.workspace_id
        asked.message_id = event.message_id
        for kind, value in identifiers_of(event, passage.subject.context, passage.subject.email, passage.external):
            identifier = asked.identifiers.add()
            identifier.type = kind
            identifier.value = value
        if traits := traits_of(event):
            asked.traits = traits
            asked.event_time.CopyFrom(event.event_time)
        if passage.traceparent:
            asked.traceparent = passage.traceparent
    return request


def set_identity(event: event_pb2.Event, result: identity_service_pb2.ResolvedIdentity) -> None:
    """Writes who it was."""
    event.ClearField("identity")
    identity = event.identity
    identity.profile_id = result.profile_id
    if result.created:
        identity.created = True
    if result.merged_profile_ids:
        identity.merged_profile_ids.extend(result.merged_profile_ids)


def set_fallback_identity(event: event_pb2.Event) -> None:
    """Writes the id of an event that may not be linked, made from the event alone."""
    event.ClearField("identity")
    identity = event.identity
    identity.profile_id = fallback_profile_id(event.workspace_id, event.user_id, event.anonymous_id, event.message_id)
    identity.fallback = True


def set_external_ids(event: event_pb2.Event, external: Sequence[tuple[str, str]]) -> None:
    """Writes the identifiers that the client gave beside the well-known ones."""
    if external or event.external_ids:
        event.ClearField("external_ids")
    for kind, value in external:
        event.external_ids.add(type=kind, value=value)


def explanation(seen: SeenEvent) -> enrichment_service_pb2.ExplainEventResponse:
    """Where an event stands."""
    response = enrichment_service_pb2.ExplainEventResponse(
        partition=seen.partition, collected_sequence=seen.place.sequence, index=seen.place.position
    )
    response.seen_time.FromDatetime(seen.seen_time)
    return response


def page_size(asked: int) -> int:
    """The size of a page; raises ``InvalidArgument`` for a negative one."""
    if asked < 0:
        raise InvalidArgument("page_size is negative", field_violations=[("page_size", "must not be negative")])
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def page_token(last_name: str) -> str:
    """The token that continues after a name."""
    return base64.urlsafe_b64encode(last_name.encode()).decode()


def page_start(token: str) -> str:
    """The name that a token continues after; raises ``InvalidArgument`` for what is no token."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidArgument("page_token is not from an earlier answer", field_violations=[("page_token", "unknown")]) from error
