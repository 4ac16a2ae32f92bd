"""Which events a destination gets: its own filter, the event's ``integrations`` object, and the answers that the event carries."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_kernel.faults import reason_name
from cdi_router.domain.destination import Destination

FILTERED: Final = reason_name(error_pb2.ERROR_REASON_FILTERED_BY_DESTINATION)
CONSENT_DENIED: Final = reason_name(error_pb2.ERROR_REASON_CONSENT_DENIED)
SUPPRESSED: Final = reason_name(error_pb2.ERROR_REASON_SUPPRESSED)

_ALL: Final = "all"
_DISTINCT_INTEGRATIONS: Final = 1_024


class Filter:
    """The filter of one destination; asked once per event."""

    def __init__(self, destination: Destination) -> None:
        self._workspace = destination.workspace_id
        self._types = destination.event_types
        self._names = destination.event_names
        self._purposes = destination.purposes
        self._name = destination.name
        # SDKs send the same few objects again and again.
        self._wanted = lru_cache(_DISTINCT_INTEGRATIONS)(self._decode_wanted)

    def reason(self, event: Event) -> str | None:
        """Why the event is left out as far as it says itself: ``filtered_by_destination`` or ``consent_denied``; ``None`` if it is not."""
        if self.filter(event) is not None:
            return FILTERED
        return None if self.granted(event.consent.granted_purposes) else CONSENT_DENIED

    def filter(self, event: Event) -> str | None:
        """Which of the filters leaves the event out: ``event_types``, ``event_names`` or ``integrations``; ``None`` for none."""
        if self._types and event.type not in self._types:
            return "event_types"
        if self._names and event.type == event_pb2.EVENT_TYPE_TRACK and event.name not in self._names:
            return "event_names"
        integrations = event.integrations
        if integrations and not self._wanted(integrations):
            return "integrations"
        return None

    def of_workspace(self, event: Event) -> bool:
        """Whether the event belongs to the destination's workspace; to others it does not exist."""
        return event.workspace_id == self._workspace

    def granted(self, purposes: Iterable[str]) -> bool:
        """Whether every purpose that the destination needs is among ``purposes``."""
        if not self._purposes:
            return True
        return not self.missing(purposes)

    def missing(self, purposes: Iterable[str]) -> tuple[str, ...]:
        """The purposes that the destination needs and that are not among ``purposes``."""
        given = frozenset(purposes)
        return tuple(purpose for purpose in self._purposes if purpose not in given)

    def _decode_wanted(self, integrations: bytes) -> bool:
        return wanted(integrations, self._name)


def wanted(integrations: bytes, name: str) -> bool:
    """Whether an event's ``integrations`` object lets it go to a destination (source: Segment's spec, common fields).

    The destination's own member decides, an object of options counting as true; without one the member ``All`` does; without both it goes.
    Names are matched ignoring case. What is not an object says nothing.
    """
    try:
        members = msgspec.json.decode(integrations, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return True
    folded = {key.casefold(): value for key, value in members.items()}
    return _says_yes(folded.get(name.casefold(), folded.get(_ALL, True)))


def _says_yes(value: object) -> bool:
    return value is not False and value is not None
