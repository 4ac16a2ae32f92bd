"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeAlias, TypeVar

from cdi_identity.domain.audiences import Condition
from cdi_identity.domain.changes import Changes
from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.graph import Profile
from cdi_identity.domain.history import EventSearch, Key, PastEvent
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.rules import Rules
from cdi_identity.domain.separation import Separation, Whole

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile for reading.

    Attributes:
        profile_id: the canonical id.
        workspace_id: its workspace.
        identifiers: by type and value.
        documents: the traits that it and the profiles merged into it brought, and the computed ones (``domain.traits.combined``).
        merged_profile_ids: profiles that became part of it, oldest first.
        create_us: when it was made, microseconds since 1970.
    """

    profile_id: str
    workspace_id: str
    identifiers: Sequence[Identifier]
    documents: Sequence[bytes]
    merged_profile_ids: Sequence[str]
    create_us: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a workspace stands.

    Attributes:
        rules_version: of its newest rules; 0: the defaults.
        splits: how many profiles were ever separated in it. While it stays, identifiers have only ever come together.
        tombstones: generation of consent's tombstones by which people were erased lately; 0 when nobody was for an hour. No batch is
            under way for that long, and consent may begin anew with a database that was restored.
    """

    rules_version: int = 0
    splits: int = 0
    tombstones: int = 0


@dataclass(frozen=True, slots=True)
class Merges:
    """What was merged in a workspace.

    Attributes:
        last: number of the last merge, 0 if there was none. They rise in the order of the commits.
        successors: the profile that each merged one became part of, of the merges after the one that was asked from; empty if none was
            named, ``None`` if these are too many.
    """

    last: int
    successors: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is known of some identifiers, all as of one moment.

    Attributes:
        owners: the canonical profile id of each that somebody has.
        standings: of each workspace asked for.
        merges: of the same workspaces.
        server: which run of Postgres answered.
    """

    owners: Mapping[Identifier, str]
    standings: Mapping[str, Standing]
    merges: Mapping[str, Merges]
    server: str = ""


class GraphWriter(Protocol):
    """The graph of some workspaces inside one transaction: nobody else changes it until the transaction is over."""

    async def look_up(self, identifiers: Sequence[Identifier], workspace_ids: Sequence[str]) -> Lookup:
        """Owners and standings, which nobody else changes any more."""
        ...

    async def rules(self, workspace_id: str) -> Rules:
        """The newest rules of a workspace."""
        ...

    async def apply_rules(self, workspace_id: str, rules: Rules, now_us: int) -> None:
        """Stores a version of the rules, one above the newest."""
        ...

    async def load(self, profile_ids: Iterable[str], windows: Mapping[str, Mapping[str, int]]) -> Mapping[str, Profile]:
        """The profiles of some canonical ids.

        Args:
            profile_ids: what is not there is left out.
            windows: by workspace and type, from when on identifiers count (``Rules.windows``).
        """
        ...

    async def canonical_id(self, workspace_id: str, profile_id: str) -> str | None:
        """The canonical profile of an id, which may be that of a merged profile; ``None``: there is none."""
        ...

    async def save(self, changes: Changes, now_us: int) -> None:
        """Writes the changes with their decisions, and what is to be told of them into the outbox."""
        ...

    async def whole(self, workspace_id: str, profile_id: str) -> Whole:
        """A person with all that it is made of, by its canonical id."""
        ...

    async def separate(self, separation: Separation, decision: Decision, now_us: int) -> None:
        """Writes a separation with its decision, and what is to be told of it into the outbox."""
        ...

    async def decision_of_request(self, workspace_id: str, request_id: str, kind: str) -> Decision | None:
        """What an operator's request led to, if it was done before."""
        ...


class GraphStore(Protocol):
    """The identity graph. Every method raises a ``Transient`` fault when the store does not answer."""

    async def look_up(self, identifiers: Sequence[Identifier], workspace_ids: Sequence[str], since: Mapping[str, int]) -> Lookup:
        """Owners, standings and merges: all as of one moment, which may be over already.

        Args:
            identifiers: distinct ones.
            workspace_ids: theirs, and others that are asked about.
            since: by workspace, the number of the merge after which they are wanted.
        """
        ...

    def changing(self, workspace_ids: Iterable[str]) -> AbstractAsyncContextManager[GraphWriter]:
        """A transaction that has these workspaces for itself; committed at the end of the block."""
        ...

    async def rules(self, workspace_id: str) -> Rules:
        """The newest rules of a workspace."""
        ...

    async def documents(self, profile_ids: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        """The traits of canonical profiles as stored (``StoredProfile.documents``); what is not there is left out."""
        ...

    async def decisions(self, profile: StoredProfile, before_id: int | None, limit: int) -> Sequence[tuple[int, Decision]]:
        """Decisions about a profile and its parts, with their numbers, newest first, those below ``before_id``."""
        ...

    async def decision_of_message(self, workspace_id: str, message_id: str) -> Decision | None:
        """The last decision that was recorded for an event or a request."""
        ...


class DecisionRetention(Protocol):
    """Decisions that may be deleted."""

    async def forget(self, before: datetime) -> bool:
        """Deletes some decisions from before a time that only left identifiers out; returns whether there may be more.

        Does nothing while another replica is at it. Raises a ``Transient`` fault when the store does not answer.
        """
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

    async def one(self, workspace_id: str, key: Key) -> StoredProfile | None:
        """The profile of a key as of one moment after the call, ``None`` if nobody has it. Calls at the same time share statements."""
        ...

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
