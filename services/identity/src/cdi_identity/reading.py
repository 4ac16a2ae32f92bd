"""The use cases of reading: profiles by any key, lists of them, their events and links.

Deliberately absent: a cache. One statement finds a profile in a fraction of a millisecond, and what it says was so at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_identity.domain.history import PROFILE_ID, Key, PastEvent, Place, owner, search
from cdi_identity.ports import EventHistory, Page, ProfileStore, StoredLink, StoredProfile
from cdi_kernel.faults import NotFound

MAX_LOOKS: Final = 5
"""Questions to the warehouse per page: where most events of a person's devices are others', the page is short instead of late."""

PROPERTIES_AT_ONCE: Final = 200
"""Events whose properties are asked for in one statement."""

MAX_PROPERTIES_BYTES: Final = 4 * 1024 * 1024
"""Properties on one page, at most, unless a single event has more: a page ends early."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some of a person's events.

    Attributes:
        events: newest first, each with its properties, a JSON object.
        after: where the next page begins; ``None`` on the last one.
    """

    events: Sequence[tuple[PastEvent, bytes]]
    after: Place | None


class Profiles:
    """Reading profiles.

    Args:
        store: the profiles.
        history: the events of the warehouse.
        now_us: the clock, microseconds since 1970.
    """

    def __init__(self, store: ProfileStore, history: EventHistory, now_us: Callable[[], int]) -> None:
        self._store = store
        self._history = history
        self._now_us = now_us

    async def find(self, workspace_id: str, keys: Sequence[Key | None]) -> Sequence[StoredProfile | None]:
        """The profile of each key, in order; ``None`` where nobody has it. A key that nobody can have is ``None``.

        Raises:
            TooLarge: the profiles are too large for one answer.
        """
        asked = [key for key in keys if key is not None]
        found = iter(await self._store.find(workspace_id, asked) if asked else ())
        return [None if key is None else next(found) for key in keys]

    async def one(self, workspace_id: str, key: Key | None) -> StoredProfile:
        """The profile of a key, however large it is.

        Raises:
            NotFound: nobody has it.
        """
        profile = None if key is None else await self._store.one(workspace_id, key)
        if profile is None:
            raise _nobody()
        return profile

    async def page(self, workspace_id: str, after: int, limit: int) -> Page[StoredProfile]:
        """The profiles of a workspace, oldest first; see ``ProfileStore``. The order is that in which they were made."""
        return await self._store.page(workspace_id, after, limit)

    async def links(self, workspace_id: str, key: Key | None) -> Sequence[StoredLink]:
        """The identifiers of a profile, by type and value.

        Raises:
            NotFound: nobody has the key.
        """
        links = None if key is None else await self._store.links(workspace_id, key)
        if links is None:
            raise _nobody()
        return links

    async def events(self, workspace_id: str, key: Key | None, names: Sequence[str], limit: int, before: Place | None) -> EventPage:
        """Events of a person of the last 14 days, newest first.

        Args:
            workspace_id: the workspace.
            key: whose.
            names: only events of these names; none: all.
            limit: events at most. A page may be shorter, and not be the last one.
            before: where the page before ended.

        Raises:
            NotFound: nobody has the key.
            Unavailable: the warehouse does not answer.
        """
        profile = await self.one(workspace_id, key)
        ids: list[Key] = [(PROFILE_ID, profile_id) for profile_id in (profile.profile_id, *profile.merged_profile_ids)]
        keys = ids + [(kind, value) for _, kind, value in profile.identifiers]
        found: list[PastEvent] = []
        after = before
        for _ in range(MAX_LOOKS):
            looked = await self._history.events(search(workspace_id, keys, names, self._now_us(), after), limit + 1)
            found += await self._own(workspace_id, profile.profile_id, looked)
            after = looked[-1].place if len(looked) > limit else None
            if after is None or len(found) >= limit:
                break
        if len(found) > limit:
            after = found[limit - 1].place
        return await self._with_properties(workspace_id, found[:limit], after)

    async def _own(self, workspace_id: str, profile_id: str, events: Sequence[PastEvent]) -> Sequence[PastEvent]:
        """Those of the events that are this person's."""
        keys = list({key: None for event in events for key in event.keys})
        owners = await self._store.owners(workspace_id, keys) if keys else []
        known = {key: owner_id for key, owner_id in zip(keys, owners, strict=True) if owner_id is not None}
        return [event for event in events if owner(event, known) == profile_id]

    async def _with_properties(self, workspace_id: str, events: Sequence[PastEvent], after: Place | None) -> EventPage:
        shown: list[tuple[PastEvent, bytes]] = []
        size = 0
        for start in range(0, len(events), PROPERTIES_AT_ONCE):
            asked = events[start : start + PROPERTIES_AT_ONCE]
            properties = await self._history.properties(workspace_id, asked)
            for event in asked:
                known = properties.get(event.message_id, b"{}")
                size += len(known)
                if shown and size > MAX_PROPERTIES_BYTES:
                    return EventPage(shown, shown[-1][0].place)
                shown.append((event, known))
        return EventPage(shown, after)


def _nobody() -> NotFound:
    return NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": "key"})
