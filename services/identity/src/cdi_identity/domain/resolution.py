"""Which profile an event belongs to: Segment's algorithm.

1. No profile has one of the event's identifiers: make one. One has: extend it. Several have: merge them, the oldest goes on.
2. If the result would break a rule, leave out the event's lowest-priority identifier and try again, until it fits.

The hard caps (merges, identifiers), the unique type and the separations of operators are rules like the limits, so that one loop explains
every demotion. Doing an event again changes nothing: the identifiers that were kept have one profile from then on, and what was left out
would still break the same rule, as long as no time window has passed, no rule has changed and no operator has split the profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdi_identity.domain import traits
from cdi_identity.domain.decisions import Cause, Decision, Demotion, Kind, Reason
from cdi_identity.domain.graph import Graph, Profile
from cdi_identity.domain.identifiers import Identifier, by_priority, fingerprint, strongest
from cdi_identity.domain.rules import Rules
from cdi_identity.domain.traits import Source

_NOTHING: Final = ()
"""Of all events that nothing was merged by, and nothing left out of: a list for each would only be one more object."""


@dataclass(slots=True)
class Observation:
    """What one event says about a person.

    Attributes:
        workspace_id: its workspace.
        message_id: its id.
        identifiers: its usable identifiers.
        traits: JSON object of the traits that it brings; empty for none.
        time_us: when it happened; only read with traits.
        event_type: "track", "identify", ….
    """

    workspace_id: str
    message_id: str
    identifiers: tuple[Identifier, ...]
    traits: bytes = b""
    time_us: int = 0
    event_type: str = ""


@dataclass(slots=True)
class Resolution:
    """The profile of one event.

    Attributes:
        profile_id: canonical at the end of the batch.
        created: the event made this profile.
        merged: ids of profiles that the event made part of another, in order.
        demoted: identifiers left out to protect a profile, lowest priority first.
        chosen_traits: JSON object of the traits that the rules choose for events; empty for none.
    """

    profile_id: str
    created: bool = False
    merged: Sequence[str] = ()
    demoted: Sequence[Identifier] = ()
    chosen_traits: bytes = b""


class _Decided(NamedTuple):
    profile: Profile
    made: bool
    merged: Sequence[str]
    demotions: Sequence[Demotion]

    def resolution(self) -> Resolution:
        profile, made, merged, demotions = self
        canonical = profile.canonical
        demoted = [demotion.identifier for demotion in demotions] if demotions else ()
        return Resolution(canonical.profile_id, made and canonical is profile, merged, demoted)


def resolve(graph: Graph, observations: Iterable[Observation], rules: Mapping[str, Rules]) -> list[Resolution]:
    """Resolves events in order against the working copy, which is changed.

    Args:
        graph: holds every stored owner of the observations' identifiers.
        observations: each with at least one identifier.
        rules: the identity rules by workspace.
    """
    decided = [_decide(graph, observation, rules[observation.workspace_id]) for observation in observations]
    return [decision.resolution() for decision in decided]


def _decide(graph: Graph, observation: Observation, rules: Rules) -> _Decided:
    kept, profiles, unknown, demotions = _fitting(graph, observation.identifiers, rules)
    cause = Cause(observation.message_id, observation.event_type)
    made = not profiles
    merged: Sequence[str] = _NOTHING
    profile = graph.create(observation.workspace_id, cause) if made else profiles[0]
    if len(profiles) > 1:
        profile, *younger = sorted(profiles, key=lambda profile: profile.ordinal)
        for other in younger:
            graph.merge(profile, other, cause)
        merged = [other.profile_id for other in younger]
    graph.add(profile, unknown)
    if made or merged or unknown or demotions:
        kind = Kind.CREATED if made else Kind.MERGED if merged else Kind.EXTENDED if unknown else Kind.MATCHED
        graph.record(Decision(kind, profile.profile_id, cause, rules.version, merged, unknown, demotions))
    if observation.traits:
        source = Source(observation.time_us, observation.message_id, fingerprint(strongest(kept, rules)))
        graph.learn(profile, traits.observed(observation.traits, source))
    return _Decided(profile, made, merged, demotions)


def _fitting(
    graph: Graph, identifiers: Sequence[Identifier], rules: Rules
) -> tuple[Sequence[Identifier], Sequence[Profile], Sequence[Identifier], Sequence[Demotion]]:
    """The strongest identifiers of an event whose profiles may be one, these profiles, those that nobody has, and what was left out."""
    profiles, unknown = _match(graph, identifiers)
    obstacle = _obstacle(profiles, unknown, rules)
    if obstacle is None:
        return identifiers, profiles, unknown, _NOTHING
    demotions: list[Demotion] = []
    kept = by_priority(identifiers, rules)
    while obstacle is not None:
        demotions.append(Demotion(kept.pop(), *obstacle))
        profiles, unknown = _match(graph, kept)
        obstacle = _obstacle(profiles, unknown, rules)
    return kept, profiles, unknown, demotions


def _match(graph: Graph, identifiers: Iterable[Identifier]) -> tuple[list[Profile], list[Identifier]]:
    """The distinct profiles that have one of the identifiers, and the identifiers that nobody has."""
    profiles: list[Profile] = []
    unknown: list[Identifier] = []
    for identifier in identifiers:
        owner = graph.owner(identifier)
        if owner is None:
            if identifier not in unknown:
                unknown.append(identifier)
        elif owner not in profiles:
            profiles.append(owner)
    return profiles, unknown


def _obstacle(profiles: Sequence[Profile], unknown: Sequence[Identifier], rules: Rules) -> tuple[Reason, str] | None:
    """The rule that forbids one profile of all these, and the type that it is about; ``None`` if there is none.

    What changes nothing fits, even where a limit was lowered.
    """
    if len(profiles) + len(unknown) <= 1:
        return None
    if len(profiles) > 1:
        if _separated(profiles):
            return Reason.SEPARATED, ""
        if sum(len(profile.parts) + 1 for profile in profiles) - 1 > rules.max_merges:
            return Reason.MAX_MERGES, ""
    totals: dict[str, int] = {}
    for _, kind, _ in unknown:
        totals[kind] = totals.get(kind, 0) + 1
    for profile in profiles:
        for kind, count in profile.counts.items():
            totals[kind] = totals.get(kind, 0) + count
    if sum([profile.size for profile in profiles]) + len(unknown) > rules.max_identifiers:
        return Reason.MAX_IDENTIFIERS, ""
    for kind, total in totals.items():
        if total == 1:
            continue
        unique = kind == rules.unique_type
        if total > (1 if unique else rules.limit(kind)) and all(profile.counts.get(kind) != total for profile in profiles):
            return (Reason.UNIQUE if unique else Reason.LIMIT), kind
    return None


def _separated(profiles: Sequence[Profile]) -> bool:
    """Whether an operator separated two of them. Foes are canonical ids when they are loaded; later ones are among the parts."""
    foes = frozenset().union(*(profile.foes for profile in profiles))
    if not foes:
        return False
    for profile in profiles:
        others = {part for other in profiles if other is not profile for part in (other.profile_id, *other.parts)}
        if profile.foes & others:
            return True
    return False
