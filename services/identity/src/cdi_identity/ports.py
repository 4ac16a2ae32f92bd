"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cdi_identity.domain.graph import Changes, Profile
from cdi_identity.domain.history import EventSearch, Key, PastEvent
from cdi_identity.domain.identifiers import Identifier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile for reading.

    Attributes:
        profile_id: the canonical id.
        workspace_id: its workspace.
        identifiers: by type and value.
        document: its traits as stored (``domain.traits``).
        merged_profile_ids: profiles that became part of it, oldest first.
        create_us: when it was made, microseconds since 1970.
    """

    profile_id: str
    workspace_id: str
    identifiers: Sequence[Identifier]
    document: bytes
    merged_profile_ids: Sequence[str]
    create_us: int


class GraphWriter(Protocol):
    """The graph of some workspaces inside one transaction: nobody else changes it until the transaction is over."""

    async def load(self, identifiers: Sequence[Identifier]) -> Mapping[Identifier, Profile]:
        """The canonical profile of each identifier that has one; one object per profile."""
        ...

    async def save(self, changes: Changes, now_us: int) -> None:
        """Writes the changes and one message per merge into the outbox."""
        ...


class GraphStore(Protocol):
    """The identity graph. Every method raises a ``Transient`` fault when the store does not answer."""

    async def owners(self, identifiers: Sequence[Identifier]) -> Sequence[str | None]:
        """The canonical profile id of each identifier, ``None`` if nobody has it: all as of one moment, which may be over already."""
        ...

    def changing(self, workspace_ids: Iterable[str]) -> AbstractAsyncContextManager[GraphWriter]:
        """A transaction that has these workspaces for itself; committed at the end of the block."""
        ...

    async def profile_by_id(self, workspace_id: str, profile_id: str) -> StoredProfile | None:
        """The canonical profile of an id, which may be that of a merged profile. ``profile_id`` is a UUID."""
        ...

    async def profile_by_identifier(self, identifier: Identifier) -> StoredProfile | None:
        """The canonical profile that has a (usable) identifier."""
        ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list.

    Attributes:
        items: at least one as long as there is one.
        cursor: what the next page begins after; ``None`` on the last one.
    """

    items: Sequence[T]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class StoredLink:
    """An identifier of a profile.

    Attributes:
        identifier: the identifier.
        create_us: when the profile was given it, microseconds since 1970; 0 where it was not kept.
        message_id: the event that brought it; empty where it was not kept.
    """

    identifier: Identifier
    create_us: int
    message_id: str


class ProfileStore(Protocol):
    """Profiles for reading. Every method is one statement, and raises a ``Transient`` fault when the store does not answer."""

    async def find(self, workspace_id: str, keys: Sequence[Key]) -> Sequence[StoredProfile | None]:
        """The profile of each key as of one moment, ``None`` if nobody has it.

        Raises:
            TooLarge: the profiles are too large for one answer.
        """
        ...

    async def page(self, workspace_id: str, after: int, limit: int) -> Page[StoredProfile]:
        """Profiles that are not part of another, oldest first; fewer than ``limit`` where they are large.

        Args:
            workspace_id: the workspace.
            after: the cursor of the page before; 0 for the first one.
            limit: profiles at most.
        """
        ...

    async def links(self, workspace_id: str, key: Key) -> Sequence[StoredLink] | None:
        """The identifiers of the profile that has the key, by type and value; ``None`` if there is none."""
        ...

    async def owners(self, workspace_id: str, keys: Sequence[Key]) -> Sequence[str | None]:
        """The canonical profile id of each key, ``None`` if nobody has it."""
        ...


class EventHistory(Protocol):
    """The events of the warehouse. Every method raises ``Unavailable`` when it does not answer."""

    async def events(self, wanted: EventSearch, limit: int) -> Sequence[PastEvent]:
        """Events that fit, newest first, without their properties."""
        ...

    async def properties(self, workspace_id: str, events: Sequence[PastEvent]) -> Mapping[str, bytes]:
        """The properties of events by message id: a JSON object each. What the warehouse does not have (any more) is missing."""
        ...
