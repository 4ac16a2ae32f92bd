"""What peers are asked and answer, and what callers ask and get ↔ the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import repeat
from typing import Final

from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.event.v1 import event_pb2
from cdi.identity.v1 import identity_service_pb2, profile_pb2
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.consent import NOTHING_SAID, Carried
from cdi_enrichment.domain.identifiers import identifiers_of, traits_of
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.places import Places
from cdi_enrichment.ports import SeenEvent
from cdi_kernel.faults import InvalidArgument
from cdi_kernel.ids import fallback_profile_id

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000

_REMEMBERED: Final = 256
"""Few values, because clients choose how long they are; traffic repeats a handful."""

NO_PLACES: Final[Mapping[str, Places]] = {}

# Heads alone where the collector, or ``identifiers_of``, keeps the length within their table.
# Identity's input has the same numbers for the workspace and the message; a test holds it.
_input_workspace = wire.field(consent_service_pb2.ConsentInput, "workspace_id")
_message = wire.heads(consent_service_pb2.ConsentInput, "message_id")
_user = wire.heads(consent_service_pb2.ConsentInput, "user_id")
_anonymous = wire.heads(consent_service_pb2.ConsentInput, "anonymous_id")
_consent_time = wire.heads(consent_service_pb2.ConsentInput, "event_time")
_consent_trace = wire.field(consent_service_pb2.ConsentInput, "traceparent")
_consent_region = wire.field(consent_service_pb2.ConsentInput, "region")
_consent_input = wire.field(consent_service_pb2.EvaluateConsentRequest, "inputs")
_event_consent = wire.field(event_pb2.Event, "consent")

_identifier = wire.field(identity_service_pb2.IdentityInput, "identifiers")
_traits = wire.field(identity_service_pb2.IdentityInput, "traits")
_traits_time = wire.field(identity_service_pb2.IdentityInput, "event_time")
_identity_trace = wire.field(identity_service_pb2.IdentityInput, "traceparent")
_identity_input = wire.field(identity_service_pb2.ResolveIdentitiesRequest, "inputs")
_event_identity = wire.field(event_pb2.Event, "identity")
_identifier_type = wire.field(profile_pb2.Identifier, "type")
_value = wire.heads(profile_pb2.Identifier, "value")
_external = wire.field(event_pb2.Event, "external_ids")
_event_type = wire.field(identity_service_pb2.IdentityInput, "event_type")
_IDENTIFY: Final = event_pb2.EVENT_TYPE_IDENTIFY
_PROFILE_ID_TAG: Final = wire.heads(identity_service_pb2.ResolvedIdentity, "profile_id")[0][0]


def consent_inputs(passages: Iterable[Passage], regions: Iterable[str] = repeat("")) -> list[bytes]:
    """What consent needs to know of each event, as fields of the request.

    Args:
        passages: the events.
        regions: where each was; empty if unknown.
    """
    inputs: list[bytes] = []
    # No longer than the events.
    for passage, region in zip(passages, regions, strict=False):
        event = passage.event
        encoded = passage.message_id.encode()
        parts = [_workspace(passage.workspace_id), _message[len(encoded)], encoded]
        if user_id := event.user_id:
            encoded = user_id.encode()
            parts += (_user[len(encoded)], encoded)
        if anonymous_id := event.anonymous_id:
            encoded = anonymous_id.encode()
            parts += (_anonymous[len(encoded)], encoded)
        if (said := passage.subject.said) is not NOTHING_SAID:
            encoded = event.event_time.SerializeToString()
            parts += (_said(said), _consent_time[len(encoded)], encoded)
        if region:
            parts.append(_region(region))
        if passage.traceparent:
            parts.append(_consent_trace(passage.traceparent.encode()))
        inputs.append(_consent_input(b"".join(parts)))
    return inputs


@lru_cache(maxsize=_REMEMBERED)
def _said(said: Carried) -> bytes:
    """What an event says of consent. Most people answer alike."""
    preferences = [consent_service_pb2.CategoryPreference(category=category, granted=granted) for category, granted in said.answers]
    signals = [consent_service_pb2.ConsentSignal(kind=kind, raw=raw) for kind, raw in said.signals]
    return consent_service_pb2.ConsentInput(preferences=preferences, has_preferences=not preferences, signals=signals).SerializeToString()


def identity_inputs(passages: Iterable[Passage], places: Mapping[str, Places] = NO_PLACES) -> list[bytes]:
    """The identifiers and traits of each event, as fields of the request.

    Args:
        passages: the events.
        places: by workspace, where its events carry identifiers beside the standard places; most have none.
    """
    inputs: list[bytes] = []
    for passage in passages:
        event, subject = passage.event, passage.subject
        encoded = passage.message_id.encode()
        workspace_id = passage.workspace_id
        event_type = event.type
        parts = [_workspace_and_type(workspace_id, event_type), _message[len(encoded)], encoded]
        own = places.get(workspace_id) if places else None
        for kind, value in identifiers_of(event, subject.context, subject.email, subject.external, own):
            encoded = value.encode()
            parts.append(_identifier(_type(kind) + _value[len(encoded)] + encoded))
        if event_type == _IDENTIFY and (traits := traits_of(event)):
            parts += (_traits(traits), _traits_time(event.event_time.SerializeToString()))
        if passage.traceparent:
            parts.append(_identity_trace(passage.traceparent.encode()))
        inputs.append(_identity_input(b"".join(parts)))
    return inputs


@lru_cache(maxsize=_REMEMBERED)
def _region(region: str) -> bytes:
    return _consent_region(region.encode())


@lru_cache(maxsize=_REMEMBERED)
def _workspace(workspace_id: str) -> bytes:
    return _input_workspace(workspace_id.encode())


@lru_cache(maxsize=_REMEMBERED)
def _workspace_and_type(workspace_id: str, event_type: event_pb2.EventType.ValueType) -> bytes:
    """The fields of identity's input that most events of a batch share."""
    name = event_pb2.EventType.Name(event_type) if event_type in event_pb2.EventType.values() else ""
    spelt = name.removeprefix("EVENT_TYPE_").lower() if event_type else ""
    return _input_workspace(workspace_id.encode()) + (_event_type(spelt.encode()) if spelt else b"")


@lru_cache(maxsize=_REMEMBERED)
def _type(kind: str) -> bytes:
    return _identifier_type(kind.encode())


def set_consent(passage: Passage, result: consent_service_pb2.EvaluatedConsent) -> None:
    """Writes what the person agreed to: the answer has the same fields by number as the event's part."""
    passage.consent = _event_consent(result.SerializeToString())
    passage.linkable = result.linkable


def set_identity(passage: Passage, resolved: bytes) -> None:
    """Writes who it was: what the event keeps of a ``ResolvedIdentity`` has the same fields by number.

    Most often the profile id is all there is; then its length says so.
    """
    is_only_id = len(resolved) > 1 and resolved[0] == _PROFILE_ID_TAG and resolved[1] == len(resolved) - 2
    passage.identity = _event_identity(resolved if is_only_id else _kept(resolved))


def _kept(resolved: bytes) -> bytes:
    """A ``ResolvedIdentity`` with no more than the types of the identifiers that identity left out. The traits that it chose stay."""
    result = identity_service_pb2.ResolvedIdentity.FromString(resolved)
    if not result.demoted_identifiers:
        return resolved
    types = [identifier.type for identifier in result.demoted_identifiers]
    result.ClearField("demoted_identifiers")
    return result.SerializeToString() + event_pb2.IdentityResult(demoted_identifier_types=types).SerializeToString()


def set_fallback_identity(passage: Passage) -> None:
    """Writes the id of an event that may not be linked, made from the event alone."""
    profile_id = fallback_profile_id(passage.workspace_id, passage.event.user_id, passage.event.anonymous_id, passage.message_id)
    passage.identity = _event_identity(event_pb2.IdentityResult(profile_id=profile_id, fallback=True).SerializeToString())


def set_external_ids(passage: Passage) -> None:
    """Writes the identifiers that the client gave beside the well-known ones."""
    found = (event_pb2.ExternalId(type=kind, value=value).SerializeToString() for kind, value in passage.subject.external)
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
