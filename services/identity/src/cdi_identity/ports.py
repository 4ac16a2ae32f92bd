"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cdi_identity.domain.audiences import Condition
from cdi_identity.domain.graph import Changes, Profile
from cdi_identity.domain.identifiers import Identifier


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


Asked: TypeAlias = Sequence[tuple[str, str]]
"""Type (``user_id``, ``anonymous_id``) and value of the ids by which consent knows a person."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person who may be exported.

    Attributes:
        profile_id: the canonical id.
        contacts: addresses and numbers by type (``domain.audiences.contacts``).
        subjects: see ``Asked``.
    """

    profile_id: str
    contacts: Mapping[str, Sequence[str]]
    subjects: Asked


class PeopleStore(Protocol):
    """The people of the graph. Raises a ``Transient`` fault when the store does not answer."""

    def pages(
        self, workspace_id: str, profile_ids: Sequence[str] | None, conditions: Sequence[Condition]
    ) -> AsyncIterator[list[Candidate]]:
        """Everybody who fulfils the conditions, in pages of bounded size, some of them empty; each page as of one moment.

        Who is merged between two pages may come under both ids or under neither.

        Args:
            workspace_id: the workspace.
            profile_ids: UUIDs, also of merged profiles; ``None``: everybody.
            conditions: all of them have to hold.
        """
        ...


class PurposeChecker(Protocol):
    """The consent service. Raises ``Unavailable`` when it does not answer, ``NotFound`` when it knows no such purpose."""

    async def granted(self, workspace_id: str, purpose: str, people: Sequence[Asked]) -> list[bool]:
        """Whether the purpose is granted, for each person."""
        ...
