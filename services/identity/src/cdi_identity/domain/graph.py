"""The working copy of the piece of graph that a batch touches, and what has to be written of it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cdi_identity.domain import traits
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.traits import Traits

_FRESH_ORDINAL: Final = 1 << 62
"""Above every stored ordinal: a fresh profile is younger than all stored ones."""


@dataclass(slots=True, eq=False)
class Profile:
    """One person in the working copy.

    Attributes:
        profile_id: its id.
        workspace_id: its workspace.
        ordinal: rises with every profile made; the lower, the older. Not a time: replicas' clocks differ.
        counts: number of identifiers by type.
        merges: profiles that became part of it.
        document: its traits as stored.
        into: the profile that it became part of.
    """

    profile_id: str
    workspace_id: str
    ordinal: int
    counts: dict[str, int] = field(default_factory=dict)
    merges: int = 0
    document: bytes = b""
    into: Profile | None = None
    _traits: Traits | None = None

    @property
    def fresh(self) -> bool:
        """Whether it is not stored yet."""
        return self.ordinal >= _FRESH_ORDINAL

    @property
    def canonical(self) -> Profile:
        """The profile that stands for this person now."""
        profile = self
        while profile.into is not None:
            profile = profile.into
        return profile

    def learn(self, news: Traits) -> bool:
        """Takes over newer traits; returns whether anything changed."""
        if self._traits is None:
            self._traits = traits.from_document(self.document)
        if not traits.learn(self._traits, news):
            return False
        self.document = b""
        return True

    def known_traits(self) -> Traits:
        """Its traits."""
        if self._traits is None:
            self._traits = traits.from_document(self.document)
        return self._traits

    def rendered(self) -> bytes:
        """Its traits as they have to be stored."""
        return self.document or traits.to_document(self._traits or {})


@dataclass(frozen=True, slots=True)
class Merge:
    """Two profiles became one because of an event."""

    workspace_id: str
    canonical_profile_id: str
    merged_profile_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changed, in the order in which it has to become visible.

    Attributes:
        created: fresh profiles, oldest first; some may have been merged within the batch.
        identifiers: new identifiers with the profile they were first seen on.
        merges: all merges, in order.
        moved: stored profiles that were merged.
        updated: stored profiles that go on with other traits or more merges.
    """

    created: Sequence[Profile]
    identifiers: Sequence[tuple[Identifier, Profile]]
    merges: Sequence[Merge]
    moved: Sequence[Profile]
    updated: Sequence[Profile]

    def __bool__(self) -> bool:
        return bool(self.created or self.identifiers or self.merges or self.updated)


class Graph:
    """Profiles by identifier, changed in memory.

    Args:
        owners: the stored profile of each identifier of the batch that has one; one object per profile.
        fresh_ids: ids for profiles that have to be made.
    """

    def __init__(self, owners: Mapping[Identifier, Profile], fresh_ids: Iterator[str]) -> None:
        self._owners = dict(owners)
        self._fresh_ids = fresh_ids
        self._created: list[Profile] = []
        self._identifiers: list[tuple[Identifier, Profile]] = []
        self._merges: list[Merge] = []
        self._moved: list[Profile] = []
        self._touched: dict[Profile, None] = {}

    def owner(self, identifier: Identifier) -> Profile | None:
        """The canonical profile of an identifier."""
        profile = self._owners.get(identifier)
        return None if profile is None else profile.canonical

    def create(self, workspace_id: str) -> Profile:
        """Makes a profile without identifiers, younger than all others."""
        profile = Profile(next(self._fresh_ids), workspace_id, _FRESH_ORDINAL + len(self._created))
        self._created.append(profile)
        return profile

    def add(self, profile: Profile, identifiers: Iterable[Identifier]) -> None:
        """Gives identifiers that nobody has to a profile."""
        for identifier in identifiers:
            self._owners[identifier] = profile
            self._identifiers.append((identifier, profile))
            profile.counts[identifier[1]] = profile.counts.get(identifier[1], 0) + 1

    def merge(self, into: Profile, merged: Profile, message_id: str) -> None:
        """Makes ``merged`` a part of ``into``: identifiers, earlier merges and newer traits go over."""
        for kind, count in merged.counts.items():
            into.counts[kind] = into.counts.get(kind, 0) + count
        into.merges += merged.merges + 1
        into.learn(merged.known_traits())
        merged.into = into
        self._merges.append(Merge(into.workspace_id, into.profile_id, merged.profile_id, message_id))
        if not merged.fresh:
            self._moved.append(merged)
        self._touched[into] = None

    def learn(self, profile: Profile, news: Traits) -> None:
        """Gives newer traits to a profile."""
        if profile.learn(news):
            self._touched[profile] = None

    def changes(self) -> Changes:
        """All changes since the graph was loaded."""
        updated = [profile for profile in self._touched if not profile.fresh and profile.into is None]
        return Changes(self._created, self._identifiers, self._merges, self._moved, updated)
