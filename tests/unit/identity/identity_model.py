"""A graph in memory for tests of the domain: what the store keeps between batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from cdi.identity.v1.profile_pb2 import Identifier as Identified
from cdi_identity.domain.changes import Changes, TraitEntry
from cdi_identity.domain.decisions import MERGE_REQUEST, Cause, Decision, Kind
from cdi_identity.domain.graph import Graph, Profile
from cdi_identity.domain.identifiers import Identifier, usable
from cdi_identity.domain.resolution import Observation, Resolution, resolve
from cdi_identity.domain.rules import DEFAULT_RULES, Rules
from cdi_identity.domain.separation import Part, Separation, Whole, take, undo

WORKSPACE = "acme"


def seen(*identifiers: str, message_id: str = "m", traits: bytes = b"", time_us: int = 0) -> Observation:
    """An event's observation from texts such as ``"user_id:abc"``."""
    return Observation(WORKSPACE, message_id, usable(WORKSPACE, map(brought, identifiers)), traits, time_us, "track")


def brought(text: str) -> Identified:
    """``"user_id:abc"`` as an event brings it."""
    kind, _, value = text.partition(":")
    return Identified(type=kind, value=value)


def named(text: str) -> Identifier:
    """``"user_id:abc"`` as the domain has it."""
    kind, _, value = text.partition(":")
    return (WORKSPACE, kind, value)


@dataclass
class Row:
    """A profile as the store keeps it."""

    ordinal: int
    document: bytes
    canonical_id: str
    parent_id: str | None = None


@dataclass
class Added:
    """An identifier as the store keeps it."""

    origin_id: str
    time_us: int = 0


@dataclass
class GraphInMemory:
    """Applies changes as the store does, to plain dicts."""

    rules: Rules = DEFAULT_RULES
    now_us: int = 0
    profiles: dict[str, Row] = field(default_factory=dict)
    added: dict[Identifier, Added] = field(default_factory=dict)
    apart: set[tuple[str, str]] = field(default_factory=set)
    last: Changes = field(default_factory=Changes)
    ids: Iterator[str] = field(default_factory=lambda: (f"p{number}" for number in count(1)))

    def resolve(self, *observations: Observation) -> list[Resolution]:
        profiles = {profile_id: self._loaded(profile_id) for profile_id, row in self.profiles.items() if row.canonical_id == profile_id}
        graph = Graph({identifier: profiles[self._owner(identifier)] for identifier in self.added}, self.ids)
        resolutions = resolve(graph, observations, {WORKSPACE: self.rules})
        self._save(graph.changes())
        return resolutions

    def merge(self, one: str, other: str) -> None:
        older, younger = sorted((self._loaded(one), self._loaded(other)), key=lambda profile: profile.ordinal)
        graph, cause = Graph({}, self.ids), Cause("r", MERGE_REQUEST)
        graph.merge(older, younger, cause)
        graph.record(Decision(Kind.MERGED, older.profile_id, cause))
        self._save(graph.changes())

    def undo(self, profile_id: str, merged_id: str) -> Separation:
        return self._separate(undo(self.whole(profile_id), merged_id))

    def take(self, profile_id: str, *identifiers: str) -> Separation:
        return self._separate(take(self.whole(profile_id), list(map(named, identifiers)), next(self.ids)))

    def whole(self, profile_id: str) -> Whole:
        members = {p: row for p, row in self.profiles.items() if row.canonical_id == profile_id}
        parts = [Part(p, row.ordinal, row.document, row.parent_id) for p, row in members.items()]
        origins = {identifier: item.origin_id for identifier, item in self.added.items() if item.origin_id in members}
        foes = frozenset(other for one, other in self.apart if one in members)
        return Whole(WORKSPACE, profile_id, sorted(parts, key=lambda part: part.ordinal), origins, foes)

    @property
    def canonical(self) -> dict[str, str]:
        """The canonical profile of every profile."""
        return {profile_id: row.canonical_id for profile_id, row in self.profiles.items()}

    def state(self) -> object:
        """All but the separations."""
        return {p: (row.ordinal, row.document, row.canonical_id, row.parent_id) for p, row in self.profiles.items()}, dict(self.added)

    def traits(self, profile_id: str) -> dict[str, bytes]:
        """The traits of a person."""
        return {name: bytes(trait.value) for name, trait in self._loaded(profile_id).traits.items()}

    def merges(self, profile_id: str) -> int:
        """Profiles that are part of it."""
        return list(self.canonical.values()).count(profile_id) - 1

    def people(self) -> set[frozenset[str]]:
        """The identifiers of each profile."""
        return set(map(frozenset, self.identifiers().values()))

    def identifiers(self) -> dict[str, set[str]]:
        """The identifiers by profile."""
        result: dict[str, set[str]] = {}
        for identifier in self.added:
            result.setdefault(self._owner(identifier), set()).add(f"{identifier[1]}:{identifier[2]}")
        return result

    def _owner(self, identifier: Identifier) -> str:
        return self.profiles[self.added[identifier].origin_id].canonical_id

    def _loaded(self, profile_id: str) -> Profile:
        whole, windows = self.whole(profile_id), self.rules.windows(self.now_us)
        counts: dict[str, int] = {}
        for identifier in whole.origins:
            if self.added[identifier].time_us >= windows.get(identifier[1], 0):
                counts[identifier[1]] = counts.get(identifier[1], 0) + 1
        others = [part for part in whole.parts if part.profile_id != profile_id]
        row = self.profiles[profile_id]
        return Profile(
            profile_id,
            WORKSPACE,
            row.ordinal,
            counts,
            len(whole.origins),
            row.document,
            [part.profile_id for part in others],
            [part.document for part in others],
            frozenset(self.profiles[foe].canonical_id for foe in whole.foes),
        )

    def _save(self, changes: Changes) -> None:
        self.last = changes
        for profile in changes.created:
            self.profiles[profile.profile_id] = Row(len(self.profiles), profile.rendered(), profile.canonical.profile_id)
        for identifier, profile, _ in changes.identifiers:
            assert identifier not in self.added
            self.added[identifier] = Added(profile.profile_id, self.now_us)
        moved = {profile.profile_id: profile.canonical.profile_id for profile in changes.moved}
        for row in self.profiles.values():
            row.canonical_id = moved.get(row.canonical_id, row.canonical_id)
        for merge in changes.merges:
            self.profiles[merge.merged_profile_id].parent_id = merge.canonical_profile_id
        for profile in changes.updated:
            self.profiles[profile.profile_id].document = profile.rendered()
        for one, other in changes.reconciled:
            self.apart -= {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}

    def _separate(self, separation: Separation) -> Separation:
        if separation.fresh:
            self.profiles[separation.separated_id] = Row(len(self.profiles), b"", separation.separated_id)
            for identifier in separation.identifiers:
                self.added[identifier].origin_id = separation.separated_id
        else:
            self.profiles[separation.separated_id].parent_id = None
        for profile_id in separation.part_ids:
            self.profiles[profile_id].canonical_id = separation.separated_id
        for profile_id, document in separation.documents.items():
            self.profiles[profile_id].document = document
        self.apart |= {*separation.apart, *((other, one) for one, other in separation.apart)}
        assert self.merges(separation.remaining_id) == separation.remaining_merges
        return separation


def components(groups: Iterable[Sequence[str]]) -> set[frozenset[str]]:
    """Connected components: what the graph must be when no limit is met."""
    result: list[set[str]] = []
    for group in filter(None, groups):
        joined = set(group).union(*(part for part in result if part & set(group)))
        result = [part for part in result if not part & joined] + [joined]
    return set(map(frozenset, result))


class GraphAsTold:
    """What a reader of ``GraphChanged`` knows: the graph made of nothing but the entries, in order."""

    def __init__(self) -> None:
        self.canonical: dict[str, str] = {}
        self.mappings: dict[Identifier, str] = {}
        self.traits: dict[str, dict[str, bytes]] = {}

    def batch(self, changes: Changes) -> None:
        self.canonical |= {entry.profile_id: entry.canonical_profile_id for entry in changes.canonicals}
        self.mappings |= {identifier: profile.profile_id for identifier, profile, _ in changes.identifiers}
        self._tell(changes.traits())

    def separation(self, separation: Separation) -> None:
        self.canonical |= dict.fromkeys(separation.part_ids, separation.separated_id)
        self.traits.pop(separation.separated_id, None)
        if separation.fresh:
            self.mappings |= dict.fromkeys(separation.identifiers, separation.separated_id)
        self._tell(separation.traits)

    def people(self) -> Mapping[str, set[str]]:
        """The identifiers by profile."""
        result: dict[str, set[str]] = {}
        for (_, kind, value), profile_id in self.mappings.items():
            result.setdefault(self.canonical[profile_id], set()).add(f"{kind}:{value}")
        return result

    def _tell(self, entries: Iterable[TraitEntry]) -> None:
        for entry in entries:
            known = self.traits.setdefault(entry.profile_id, {})
            known.pop(entry.name, None)
            if entry.trait is not None:
                known[entry.name] = bytes(entry.trait.value)
