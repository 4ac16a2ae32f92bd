"""What peers are asked and answer, and what callers ask and get ↔ the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
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


def consent_input(passage: Passage) -> consent_service_pb2.ConsentInput:
    """What consent needs to know of an event."""
    event = passage.event
    given = passage.subject.context.consent
    preferences = given.category_preferences if given is not None else None
    return consent_service_pb2.ConsentInput(
        workspace_id=event.workspace_id,
        message_id=event.message_id,
        user_id=event.user_id,
        anonymous_id=event.anonymous_id,
        preferences=[consent_service_pb2.CategoryPreference(category=c, granted=g) for c, g in preferences.items()]
        if preferences
        else None,
        event_time=event.event_time,
        traceparent=passage.traceparent,
    )


def set_consent(event: event_pb2.Event, result: consent_service_pb2.EvaluatedConsent) -> None:
    """Writes what the person agreed to."""
    consent = event.consent
    consent.granted_purposes[:] = result.granted_purposes
    consent.decision_ids[:] = result.decision_ids
    consent.linkable = result.linkable


def identity_input(passage: Passage) -> identity_service_pb2.IdentityInput:
    """The identifiers and traits of an event."""
    event = passage.event
    return identity_service_pb2.IdentityInput(
        workspace_id=event.workspace_id,
        message_id=event.message_id,
        identifiers=identifiers_of(event, passage.subject.context, passage.subject.email, passage.external),
        traits=traits_of(event),
        event_time=event.event_time,
        traceparent=passage.traceparent,
    )


def set_identity(event: event_pb2.Event, result: identity_service_pb2.ResolvedIdentity) -> None:
    """Writes who it was."""
    identity = event.identity
    identity.profile_id = result.profile_id
    identity.created = result.created
    identity.merged_profile_ids[:] = result.merged_profile_ids
    identity.fallback = False


def set_fallback_identity(event: event_pb2.Event) -> None:
    """Writes the id of an event that may not be linked, made from the event alone."""
    event.ClearField("identity")
    identity = event.identity
    identity.profile_id = fallback_profile_id(event.workspace_id, event.user_id, event.anonymous_id, event.message_id)
    identity.fallback = True


def set_external_ids(event: event_pb2.Event, external: Sequence[tuple[str, str]]) -> None:
    """Writes the identifiers that the client gave beside the well-known ones."""
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
