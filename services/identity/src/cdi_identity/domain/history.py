"""The past events of a person: which ones to look for, and whose each of them is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Key: TypeAlias = tuple[str, str]
"""How somebody knows a person: type and value of an identifier, or ``PROFILE_ID`` and a profile id (a UUID in its canonical spelling)."""

PROFILE_ID: Final = ""
"""The type of a key that is a profile id. No identifier has an empty type."""

USER_ID: Final = "user_id"
ANONYMOUS_ID: Final = "anonymous_id"

HISTORY_US: Final = 14 * 86_400 * 1_000_000
"""How far back the events of a person are told: 14 days, in microseconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point in a list that is sorted by time and message id, newest first."""

    event_us: int
    message_id: str


@dataclass(frozen=True, slots=True)
class EventSearch:
    """Which events may be a person's: those that carry one of these ids.

    Attributes:
        workspace_id: the workspace.
        profile_ids: the person's, also of merged profiles.
        user_ids: the person's.
        anonymous_ids: the person's.
        names: only events of these names; none: all.
        since_us: the oldest, microseconds since 1970.
        before: only events that come after this one in the list.
    """

    workspace_id: str
    profile_ids: Sequence[str]
    user_ids: Sequence[str]
    anonymous_ids: Sequence[str]
    names: Sequence[str]
    since_us: int
    before: Place | None


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event as the warehouse has it, without its properties.

    Attributes:
        message_id: its id.
        type: "track", "page", …
        name: its name; empty where it has none.
        source_id: its source.
        event_us: when it happened, microseconds since 1970.
        profile_id: whose it was when it was loaded.
        user_id: that it carries; empty if none.
        anonymous_id: that it carries; empty if none.
        schema: where in the warehouse it stands.
        stem: what the name of its table there is made of: for a track its name in snake case, else the type's table.
    """

    message_id: str
    type: str
    name: str
    source_id: str
    event_us: int
    profile_id: str
    user_id: str
    anonymous_id: str
    schema: str
    stem: str

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place(self.event_us, self.message_id)

    @property
    def keys(self) -> Sequence[Key]:
        """What tells whose it is, strongest first."""
        pairs = ((USER_ID, self.user_id), (ANONYMOUS_ID, self.anonymous_id), (PROFILE_ID, self.profile_id))
        return [pair for pair in pairs if pair[1]]


def search(workspace_id: str, keys: Sequence[Key], names: Sequence[str], now_us: int, before: Place | None) -> EventSearch:
    """What to look for.

    Args:
        workspace_id: the workspace.
        keys: all ids and identifiers of the person. Of the identifiers the warehouse has a column for two types.
        names: see ``EventSearch``.
        now_us: the time, microseconds since 1970.
        before: see ``EventSearch``.
    """
    of_type = {kind: [value for other, value in keys if other == kind] for kind in (PROFILE_ID, USER_ID, ANONYMOUS_ID)}
    return EventSearch(workspace_id, of_type[PROFILE_ID], of_type[USER_ID], of_type[ANONYMOUS_ID], names, now_us - HISTORY_US, before)


def owner(event: PastEvent, owners: Mapping[Key, str]) -> str | None:
    """Whose an event is now, a canonical profile id; ``None``: nobody's.

    The strongest of its identifiers that the graph knows decides, so that a split takes past events along, and an event of another user on
    a shared device stays that user's. An event whose profile id is not in the graph was not to be linked to a person, whatever it carries.

    Args:
        event: the event.
        owners: the canonical profile id of every key that has one.
    """
    if (PROFILE_ID, event.profile_id) not in owners:
        return None
    return next(owners[key] for key in event.keys if key in owners)
