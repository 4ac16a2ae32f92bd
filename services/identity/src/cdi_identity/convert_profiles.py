"""Requests and responses of ``ProfilesService`` ↔ the domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import Final

from cdi.identity.v1 import identity_service_pb2
from cdi.identity.v1 import profiles_service_pb2 as pb
from cdi_identity import convert
from cdi_identity.domain import traits
from cdi_identity.domain.history import PROFILE_ID, Key, PastEvent, Place
from cdi_identity.domain.identifiers import usable
from cdi_identity.ports import StoredLink, StoredProfile
from cdi_identity.reading import EventPage
from cdi_kernel.faults import InvalidArgument

MAX_KEYS: Final = 1_000
"""Keys of one batch (contract of ``BatchGetProfilesRequest.keys``)."""

MAX_NAMES: Final = 1_000
"""Names of events or traits in one request."""

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000

_MAX_ORDINAL: Final = (1 << 63) - 1


def key(given: pb.ProfileKey | identity_service_pb2.GetProfileRequest, workspace_id: str, field: str = "key") -> Key | None:
    """A key; ``None`` for one that nobody can have: an id that is no UUID, an identifier that never links.

    Raises:
        InvalidArgument: it is not set.
    """
    match given.WhichOneof("key"):
        case "profile_id":
            profile_id = convert.profile_id(given.profile_id)
            return None if profile_id is None else (PROFILE_ID, profile_id)
        case "identifier":
            return next(((kind, value) for _, kind, value in usable(workspace_id, [given.identifier])), None)
        case _:
            raise InvalidArgument("a key is needed", field_violations=[(field, "must have a profile id or an identifier")])


def keys(request: pb.BatchGetProfilesRequest) -> Sequence[Key | None]:
    """The keys of a batch, in order.

    Raises:
        InvalidArgument: too many, or one that is not set.
    """
    if len(request.keys) > MAX_KEYS:
        raise InvalidArgument(f"at most {MAX_KEYS} keys", field_violations=[("keys", f"{len(request.keys)} keys")])
    return [key(given, request.workspace_id, f"keys[{index}]") for index, given in enumerate(request.keys)]


def names(given: Sequence[str], field: str) -> Sequence[str]:
    """Names of traits or events.

    Raises:
        InvalidArgument: too many.
    """
    if len(given) > MAX_NAMES:
        raise InvalidArgument(f"at most {MAX_NAMES} names", field_violations=[(field, f"{len(given)} names")])
    return list(given)


def page_size(asked: int) -> int:
    """How many items a page holds.

    Raises:
        InvalidArgument: a negative number.
    """
    if asked < 0:
        raise InvalidArgument("a page has no negative size", field_violations=[("page_size", "must not be negative")])
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def cursor(token: str) -> int:
    """The place in a list of profiles; 0 for the first page.

    Raises:
        InvalidArgument: the token is of no answer.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and int(token[:20]) <= _MAX_ORDINAL and len(token) <= 19):
        raise _foreign_token()
    return int(token)


def place(token: str) -> Place | None:
    """The place in a list of events; ``None`` for the first page.

    Raises:
        InvalidArgument: the token is of no answer.
    """
    if not token:
        return None
    try:
        moment, separator, message_id = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(",")
    except (binascii.Error, ValueError) as error:
        raise _foreign_token() from error
    if not (separator and moment.isascii() and moment.isdigit() and len(moment) <= 17):
        raise _foreign_token()
    return Place(int(moment), message_id)


def place_token(after: Place | None) -> str:
    """The token that ``place`` reads."""
    return "" if after is None else base64.urlsafe_b64encode(f"{after.event_us},{after.message_id}".encode()).decode()


def found_profile(stored: StoredProfile | None, wanted: Collection[str], with_provenance: bool) -> pb.FoundProfile:
    """A profile of a batch with the wanted traits, all if none are named; an empty message for nobody."""
    if stored is None:
        return pb.FoundProfile()
    found = pb.FoundProfile(profile=convert.profile(stored))
    if not wanted and not with_provenance:
        return found
    known = traits.combined(stored.documents)
    chosen = {name: trait for name, trait in sorted(known.items()) if not wanted or name in wanted}
    found.profile.traits = traits.to_object(chosen)
    if with_provenance:
        for name, trait in chosen.items():
            shown = found.provenance.add(name=name, value=bytes(trait.value), message_id=trait.source.message_id)
            shown.event_time.FromMicroseconds(trait.time_us)
    return found


def link(stored: StoredLink) -> pb.ProfileLink:
    """An identifier of a profile."""
    shown = pb.ProfileLink(message_id=stored.message_id)
    shown.identifier.type, shown.identifier.value = stored.identifier[1:]
    if stored.create_us:
        shown.create_time.FromMicroseconds(stored.create_us)
    return shown


def events_response(page: EventPage) -> pb.ListProfileEventsResponse:
    """A page of events."""
    return pb.ListProfileEventsResponse(
        events=[_event(event, properties) for event, properties in page.events], next_page_token=place_token(page.after)
    )


def _event(event: PastEvent, properties: bytes) -> pb.ProfileEvent:
    shown = pb.ProfileEvent(message_id=event.message_id, type=event.type, name=event.name, source_id=event.source_id, properties=properties)
    shown.event_time.FromMicroseconds(event.event_us)
    return shown


def _foreign_token() -> InvalidArgument:
    return InvalidArgument("the page token is of no answer", field_violations=[("page_token", "must be one of an answer, or empty")])
