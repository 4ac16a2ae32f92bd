"""Which profile an event belongs to: Segment's algorithm.

1. No profile has one of the event's identifiers: make one. One has: extend it. Several have: merge them, the oldest goes on.
2. If the result would exceed a limit, leave out the event's lowest-priority identifier and try again, until it fits.

The hard caps (merges, identifiers) are limits like the others, so that one rule explains every demotion. Doing an event again changes
nothing: the identifiers that were kept have one profile from then on, and what was left out would still exceed the same limit,
because profiles only grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cdi_identity.domain import traits
from cdi_identity.domain.graph import Graph, Profile
from cdi_identity.domain.identifiers import Identifier, Rules, by_priority


@dataclass(slots=True)
class Observation:
    """What one event says about a person.

    Attributes:
        workspace_id: its workspace.
        message_id: its id.
        identifiers: its usable identifiers.
        traits: JSON object of the traits that it brings; empty for none.
        time_us: when it happened; only read with traits.
    """

    workspace_id: str
    message_id: str
    identifiers: tuple[Identifier, ...]
    traits: bytes = b""
    time_us: int = 0


@dataclass(slots=True)
class Resolution:
    """The profile of one event.

    Attributes:
        profile_id: canonical at the end of the batch.
        created: the event made this profile.
        merged: ids of profiles that the event made part of another, in order.
        demoted: identifiers left out to protect a profile, lowest priority first.
    """

    profile_id: str
    created: bool = False
    merged: Sequence[str] = ()
    demoted: Sequence[Identifier] = ()


@dataclass(slots=True)
class _Decided:
    profile: Profile
    made: bool
    merged: list[str]
    demoted: list[Identifier]

    def resolution(self) -> Resolution:
        canonical = self.profile.canonical
        return Resolution(canonical.profile_id, self.made and canonical is self.profile, self.merged, self.demoted)


def resolve(graph: Graph, observations: Iterable[Observation], rules: Rules) -> list[Resolution]:
    """Resolves events in order against the working copy, which is changed.

    Args:
        graph: holds every stored owner of the observations' identifiers.
        observations: each with at least one identifier.
        rules: the identity rules.
    """
    decided = [_decide(graph, observation, rules) for observation in observations]
    return [decision.resolution() for decision in decided]


def _decide(graph: Graph, observation: Observation, rules: Rules) -> _Decided:
    demoted: list[Identifier] = []
    profiles, unknown = _match(graph, observation.identifiers)
    if not _fits(profiles, unknown, rules):
        kept = by_priority(observation.identifiers, rules)
        while not _fits(profiles, unknown, rules):
            demoted.append(kept.pop())
            profiles, unknown = _match(graph, kept)
    made = not profiles
    if made:
        profiles = [graph.create(observation.workspace_id)]
    profiles.sort(key=lambda profile: profile.ordinal)
    profile, *younger = profiles
    for other in younger:
        graph.merge(profile, other, observation.message_id)
    graph.add(profile, unknown)
    if observation.traits:
        graph.learn(profile, traits.observed(observation.traits, observation.time_us))
    return _Decided(profile, made, [other.profile_id for other in younger], demoted)


def _match(graph: Graph, identifiers: Iterable[Identifier]) -> tuple[list[Profile], list[Identifier]]:
    """The distinct profiles that have one of the identifiers, and the identifiers that nobody has."""
    profiles: dict[Profile, None] = {}
    unknown: dict[Identifier, None] = {}
    for identifier in identifiers:
        owner = graph.owner(identifier)
        if owner is None:
            unknown[identifier] = None
        else:
            profiles[owner] = None
    return list(profiles), list(unknown)


def _fits(profiles: Sequence[Profile], unknown: Sequence[Identifier], rules: Rules) -> bool:
    """Whether one profile of all these stays within the limits. What changes nothing fits, even where a limit was lowered."""
    if len(profiles) + len(unknown) <= 1:
        return True
    if len(profiles) > 1 and sum(profile.merges + 1 for profile in profiles) - 1 > rules.max_merges:
        return False
    totals: dict[str, int] = {}
    for profile in profiles:
        for kind, count in profile.counts.items():
            totals[kind] = totals.get(kind, 0) + count
    for _, kind, _ in unknown:
        totals[kind] = totals.get(kind, 0) + 1
    if sum(totals.values()) > rules.max_identifiers:
        return False
    return all(
        total <= rules.limits.get(kind, rules.default_limit) or any(profile.counts.get(kind) == total for profile in profiles)
        for kind, total in totals.items()
    )
