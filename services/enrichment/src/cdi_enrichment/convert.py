"""What peers are asked and answer, and what callers ask and get ↔ the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.event.v1 import event_pb2
from cdi.identity.v1 import identity_service_pb2, profile_pb2
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.identifiers import identifiers_of, traits_of
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.ports import SeenEvent
from cdi_kernel.faults import InvalidArgument
from cdi_kernel.ids import fallback_profile_id

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000


_workspace = wire.field(consent_service_pb2.ConsentInput, "workspace_id")
_message = wire.field(consent_service_pb2.ConsentInput, "message_id")
_user = wire.field(consent_service_pb2.ConsentInput, "user_id")
_anonymous = wire.field(consent_service_pb2.ConsentInput, "anonymous_id")
_consent_time = wire.field(consent_service_pb2.ConsentInput, "event_time")
_consent_trace = wire.field(consent_service_pb2.ConsentInput, "traceparent")
_consent_input = wire.field(consent_service_pb2.EvaluateConsentRequest, "inputs")
_event_consent = wire.field(event_pb2.Event, "consent")

_subject = wire.field(identity_service_pb2.IdentityInput, "workspace_id")
_of_event = wire.field(identity_service_pb2.IdentityInput, "message_id")
_identifier = wire.field(identity_service_pb2.IdentityInput, "identifiers")
_traits = wire.field(identity_service_pb2.IdentityInput, "traits")
_traits_time = wire.field(identity_service_pb2.IdentityInput, "event_time")
_identity_trace = wire.field(identity_service_pb2.IdentityInput, "traceparent")
_identity_input = wire.field(identity_service_pb2.ResolveIdentitiesRequest, "inputs")
_event_identity = wire.field(event_pb2.Event, "identity")
_type = wire.field(profile_pb2.Identifier, "type")
_value = wire.field(profile_pb2.Identifier, "value")
_external = wire.field(event_pb2.Event, "external_ids")


def consent_request(passages: Iterable[Passage]) -> consent_service_pb2.EvaluateConsentRequest:
    """What consent needs to know of each event."""
    inputs: list[bytes] = []
    answers: dict[tuple[tuple[str, bool], ...], bytes] = {}
    for passage in passages:
        parts = [_workspace(passage.workspace_id.encode()), _message(passage.message_id.encode())]
        if passage.user_id:
            parts.append(_user(passage.user_id.encode()))
        if passage.anonymous_id:
            parts.append(_anonymous(passage.anonymous_id.encode()))
        given = passage.subject.context.consent
        if given is not None and given.category_preferences:
            key = tuple(given.category_preferences.items())
            if (written := answers.get(key)) is None:
                written = answers[key] = _preferences(key)
            parts.append(written)
        parts.append(_consent_time(passage.event.event_time.SerializeToString()))
        if passage.traceparent:
            parts.append(_consent_trace(passage.traceparent.encode()))
        inputs.append(_consent_input(b"".join(parts)))
    return consent_service_pb2.EvaluateConsentRequest.FromString(b"".join(inputs))


def _preferences(given: Iterable[tuple[str, bool]]) -> bytes:
    """What a person answered. Most people answer alike, so a batch needs few of these."""
    preferences = [consent_service_pb2.CategoryPreference(category=category, granted=granted) for category, granted in given]
    return consent_service_pb2.ConsentInput(preferences=preferences).SerializeToString()


def set_consent(passage: Passage, result: consent_service_pb2.EvaluatedConsent) -> None:
    """Writes what the person agreed to: the answer has the same fields by number as the event's part."""
    passage.consent = _event_consent(result.SerializeToString())
    passage.linkable = result.linkable


def identity_request(passages: Iterable[Passage]) -> identity_service_pb2.ResolveIdentitiesRequest:
    """The identifiers and traits of each event."""
    inputs: list[bytes] = []
    for passage in passages:
        parts = [_subject(passage.workspace_id.encode()), _of_event(passage.message_id.encode())]
        for kind, value in identifiers_of(passage.event, passage.subject.context, passage.subject.email, passage.external):
            parts.append(_identifier(_type(kind.encode()) + _value(value.encode())))
        if traits := traits_of(passage.event):
            parts += (_traits(traits), _traits_time(passage.event.event_time.SerializeToString()))
        if passage.traceparent:
            parts.append(_identity_trace(passage.traceparent.encode()))
        inputs.append(_identity_input(b"".join(parts)))
    return identity_service_pb2.ResolveIdentitiesRequest.FromString(b"".join(inputs))


def set_identity(passage: Passage, result: identity_service_pb2.ResolvedIdentity) -> None:
    """Writes who it was: what the event keeps of the answer has the same fields by number."""
    if result.demoted_identifiers:
        kept = event_pb2.IdentityResult(
            profile_id=result.profile_id, created=result.created, merged_profile_ids=result.merged_profile_ids
        ).SerializeToString()
    else:
        kept = result.SerializeToString()
    passage.identity = _event_identity(kept)


def set_fallback_identity(passage: Passage) -> None:
    """Writes the id of an event that may not be linked, made from the event alone."""
    profile_id = fallback_profile_id(passage.workspace_id, passage.user_id, passage.anonymous_id, passage.message_id)
    passage.identity = _event_identity(event_pb2.IdentityResult(profile_id=profile_id, fallback=True).SerializeToString())


def set_external_ids(passage: Passage) -> None:
    """Writes the identifiers that the client gave beside the well-known ones."""
    found = (event_pb2.ExternalId(type=kind, value=value).SerializeToString() for kind, value in passage.external)
    passage.external_ids = b"".join(map(_external, found))


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
