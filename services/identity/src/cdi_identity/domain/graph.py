"""The working copy of the piece of graph that a batch touches, changed in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cdi_identity.domain import traits
from cdi_identity.domain.changes import CanonicalEntry, Changes, Merge
from cdi_identity.domain.decisions import Cause, Decision
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
        counts: number of identifiers by type, of those that count for the type's limit now.
        size: number of identifiers in all.
        document: the traits that its own events brought, as stored.
        parts: ids of the profiles that became part of it.
        part_documents: their traits, as stored.
        foes: canonical ids of profiles that an operator separated from it.
        into: the profile that it became part of.
    """

    profile_id: str
    workspace_id: str
    ordinal: int
    counts: dict[str, int] = field(default_factory=dict)
    size: int = 0
    document: bytes = b""
    parts: list[str] = field(default_factory=list)
    part_documents: list[bytes] = field(default_factory=list)
    foes: frozenset[str] = frozenset()
    into: Profile | None = None
    _own: Traits | None = None
    _all: Traits | None = None

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

    @property
    def own(self) -> Traits:
        """The traits that its own events brought."""
        if self._own is None:
            self._own = traits.from_document(self.document)
        return self._own

    @property
    def traits(self) -> Traits:
        """The traits of the person: its own and those of its parts."""
        if self._all is None:
            self._all = self.own if not self.parts else traits.combined((self.rendered(), *self.part_documents))
        return self._all

    def learn(self, news: Traits) -> tuple[bool, list[str]]:
        """Takes newer traits over as its own. Returns whether its document changed, and which traits of the person did."""
        before = self.traits
        if not before and not self.parts and len(news) <= traits.MAX_TRAITS:
            self._own = self._all = news
            return bool(news), list(news)
        changed = traits.learn(self.own, news)
        if changed:
            self.document = b""
        if before is self.own:
            return bool(changed), changed
        return bool(changed), traits.learn(before, {name: self.own[name] for name in changed})

    def absorb(self, other: Profile) -> list[str]:
        """Makes the other a part of this one; returns the names of the traits that the person has another value of now."""
        changed: list[str] = []
        if other.traits:
            merged = dict(self.traits)
            changed = traits.learn(merged, other.traits)
            self._all = merged
        elif self._all is not None and self._all is self._own:
            self._all = dict(self.traits)
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        self.size += other.size
        self.parts += (other.profile_id, *other.parts)
        self.foes |= other.foes
        other.into = self
        return changed

    def rendered(self) -> bytes:
        """Its own traits as they have to be stored."""
        return self.document or traits.to_document(self._own or {})


class Graph:
    """Profiles by identifier, changed in memory.

    Args:
        owners: the stored profile of each identifier of the batch that has one; one object per profile.
        fresh_ids: ids for profiles that have to be made.
    """

    def __init__(self, owners: Mapping[Identifier, Profile], fresh_ids: Iterator[str]) -> None:
        self._owners = dict(owners)
        self._fresh_ids = fresh_ids
        self._changes = Changes()
        self._updated: dict[Profile, None] = {}
        self._traits: dict[Profile, dict[str, None]] = {}

    def owner(self, identifier: Identifier) -> Profile | None:
        """The canonical profile of an identifier."""
        profile = self._owners.get(identifier)
        return None if profile is None else profile.canonical

    def create(self, workspace_id: str, cause: Cause) -> Profile:
        """Makes a profile without identifiers, younger than all others."""
        created = self._changes.created
        profile = Profile(next(self._fresh_ids), workspace_id, _FRESH_ORDINAL + len(created))
        created.append(profile)
        self._changes.canonicals.append(CanonicalEntry(workspace_id, profile.profile_id, profile.profile_id, cause))
        return profile

    def add(self, profile: Profile, identifiers: Iterable[Identifier]) -> None:
        """Gives identifiers that nobody has to a profile. The decision that is recorded next is the one that did it."""
        decision = len(self._changes.decisions)
        for identifier in identifiers:
            self._owners[identifier] = profile
            self._changes.identifiers.append((identifier, profile, decision))
            profile.counts[identifier[1]] = profile.counts.get(identifier[1], 0) + 1
            profile.size += 1

    def merge(self, into: Profile, merged: Profile, cause: Cause) -> None:
        """Makes ``merged`` a part of ``into``, with all its parts. The decision that is recorded next is the one that did it."""
        changes = self._changes
        changes.canonicals += [
            CanonicalEntry(into.workspace_id, part, into.profile_id, cause) for part in (merged.profile_id, *merged.parts)
        ]
        if merged.profile_id in into.foes or merged.foes & {into.profile_id, *into.parts}:
            changes.reconciled.append(((into.profile_id, *into.parts), (merged.profile_id, *merged.parts)))
        self._note(into, into.absorb(merged))
        changes.merges.append(Merge(into.workspace_id, into.profile_id, merged.profile_id, cause.message_id, len(changes.decisions)))
        if not merged.fresh:
            changes.moved.append(merged)
        self._updated[into] = None

    def learn(self, profile: Profile, news: Traits) -> bool:
        """Gives newer traits to a profile; returns whether that changed anything that is stored."""
        stored, names = profile.learn(news)
        if stored:
            self._updated[profile] = None
            self._note(profile, names)
        return stored

    def record(self, decision: Decision) -> None:
        """Records a decision, after the changes that it made."""
        self._changes.decisions.append(decision)

    def changes(self) -> Changes:
        """All changes since the graph was loaded."""
        changes = self._changes
        changes.updated = [profile for profile in self._updated if not profile.fresh]
        changes.learned = [(profile, profile.traits) for profile in changes.created if profile.into is None and profile.traits]
        changes.learned += [(profile, names) for profile, names in self._traits.items() if profile.into is None and names]
        return changes

    def _note(self, profile: Profile, names: Iterable[str]) -> None:
        """Remembers which traits of a stored profile have another value; of a fresh one all have."""
        if not profile.fresh:
            self._traits.setdefault(profile, {}).update(dict.fromkeys(names))
