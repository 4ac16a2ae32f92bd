"""A graph in memory for tests of the domain: what the store keeps between batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from cdi.identity.v1.profile_pb2 import Identifier as Identified
from cdi_identity.domain.graph import Changes, Graph, Profile
from cdi_identity.domain.identifiers import DEFAULT_RULES, Identifier, Rules, usable
from cdi_identity.domain.resolution import Observation, Resolution, resolve

WORKSPACE = "acme"


def seen(*identifiers: str, message_id: str = "m", traits: bytes = b"", time_us: int = 0) -> Observation:
    """An event's observation from texts such as ``"user_id:abc"``."""
    return Observation(WORKSPACE, message_id, usable(WORKSPACE, map(brought, identifiers)), traits, time_us)


def brought(text: str) -> Identified:
    """``"user_id:abc"`` as an event brings it."""
    kind, _, value = text.partition(":")
    return Identified(type=kind, value=value)


class GraphInMemory:
    """Applies changes as the store does, to plain dicts."""

    def __init__(self, rules: Rules = DEFAULT_RULES) -> None:
        self.rules = rules
        self.owners: dict[Identifier, str] = {}
        self.profiles: dict[str, Profile] = {}
        self.canonical: dict[str, str] = {}
        self.last = Changes((), (), (), (), ())
        self._ids: Iterator[str] = (f"p{number}" for number in count(1))

    def resolve(self, *observations: Observation) -> list[Resolution]:
        profiles = {profile_id: self._loaded(profile_id) for profile_id in self.profiles}
        graph = Graph({identifier: profiles[owner] for identifier, owner in self.owners.items()}, self._ids)
        resolutions = resolve(graph, observations, self.rules)
        self.last = graph.changes()
        self._save(self.last)
        return resolutions

    def people(self) -> set[frozenset[str]]:
        """The identifiers of each profile."""
        return set(map(frozenset, self.identifiers().values()))

    def identifiers(self) -> dict[str, set[str]]:
        """The identifiers by profile."""
        result: dict[str, set[str]] = {}
        for (_, kind, value), owner in self.owners.items():
            result.setdefault(owner, set()).add(f"{kind}:{value}")
        return result

    def _loaded(self, profile_id: str) -> Profile:
        counts: dict[str, int] = {}
        for (_, kind, _), owner in self.owners.items():
            if owner == profile_id:
                counts[kind] = counts.get(kind, 0) + 1
        stored = self.profiles[profile_id]
        return Profile(profile_id, WORKSPACE, stored.ordinal, counts, stored.merges, stored.document)

    def _save(self, changes: Changes) -> None:
        for profile in changes.created:
            self.profiles[profile.profile_id] = replace(profile, ordinal=len(self.profiles), document=profile.rendered(), into=None)
            self.canonical[profile.profile_id] = profile.canonical.profile_id
        for identifier, profile in changes.identifiers:
            assert identifier not in self.owners
            self.owners[identifier] = profile.canonical.profile_id
        moved = {profile.profile_id: profile.canonical.profile_id for profile in changes.moved}
        self.owners = {identifier: moved.get(owner, owner) for identifier, owner in self.owners.items()}
        self.canonical = {merged: moved.get(owner, owner) for merged, owner in self.canonical.items()}
        for profile in changes.updated:
            self.profiles[profile.profile_id].merges = profile.merges
            self.profiles[profile.profile_id].document = profile.rendered()


def components(groups: Iterable[Sequence[str]]) -> set[frozenset[str]]:
    """Connected components: what the graph must be when no limit is met."""
    result: list[set[str]] = []
    for group in filter(None, groups):
        joined = set(group).union(*(part for part in result if part & set(group)))
        result = [part for part in result if not part & joined] + [joined]
    return set(map(frozenset, result))
