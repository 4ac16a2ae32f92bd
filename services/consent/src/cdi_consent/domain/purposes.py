"""Purposes, and a workspace's purposes prepared for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from cdi_consent.domain.policy import ConsentPolicy, DefaultPolicy, RegionalDefaults, regional


class WarehouseRule(NamedTuple):
    """What one warehouse may have only where a purpose is granted.

    Attributes:
        warehouse: its name.
        rows: events are loaded there only where it is granted.
        columns: paths of members that are loaded there as NULL where it is denied, sorted.
    """

    warehouse: str
    rows: bool = False
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Purpose:
    """Something that data is used for.

    Attributes:
        workspace_id: the workspace.
        name: its name, which is also a category.
        description: for people.
        categories: categories and other keys of signals that mean it, sorted, without its own name. Case-sensitive.
        default_policy: what holds without a decision; UNSPECIFIED for what the workspace's policy says.
        required_for_linking: unless it is granted, an event may not be written into the identity graph.
        version: 1 for the first, 0 before it is stored.
        legal_basis: a number of ``cdi.consent.v1.LegalBasis``.
        destinations: names of destinations that need it, sorted.
        columns: paths of members of an event that need it, sorted: "traits.email".
        regional_defaults: exceptions from the default policy.
        warehouses: what warehouses need it for, by name. The loader heeds them, evaluation does not.
    """

    workspace_id: str
    name: str
    description: str = ""
    categories: tuple[str, ...] = ()
    default_policy: DefaultPolicy = DefaultPolicy.UNSPECIFIED
    required_for_linking: bool = False
    version: int = 0
    legal_basis: int = 0
    destinations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    regional_defaults: RegionalDefaults = ()
    warehouses: tuple[WarehouseRule, ...] = ()

    def policy(self, policy: ConsentPolicy, region: str) -> DefaultPolicy:
        """What holds in a region without a decision: the purpose's own word before the workspace's, the closer region before the wider."""
        return (
            regional(self.regional_defaults, region)
            or self.default_policy
            or regional(policy.regional_defaults, region)
            or policy.default_policy
            or DefaultPolicy.REQUIRE
        )


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one event may be used for.

    Attributes:
        granted_purposes: names, sorted.
        decision_ids: the decisions that this rests on, in the order of the purposes.
        linkable: it may be written into the identity graph.
        dropped_columns: members of the event that need a purpose which is denied, as paths, sorted.
        region: whose exceptions were looked at; empty where there are none.
        suppressed: it goes nowhere.
    """

    granted_purposes: tuple[str, ...]
    decision_ids: tuple[str, ...]
    linkable: bool
    dropped_columns: tuple[str, ...] = ()
    region: str = ""
    suppressed: bool = False


WITHOUT_PURPOSES: Final = Outcome((), (), True)
"""The outcome in a workspace that has no purposes."""

SUPPRESSED: Final = Outcome((), (), False, suppressed=True)
"""The outcome for somebody who is suppressed, or of an event from before the person's erasure."""


class Rule(NamedTuple):
    """What evaluation needs to know of a purpose.

    Attributes:
        name: of the purpose.
        allowed: granted without a decision, once anything is known of the person.
        required_for_linking: see ``Purpose``.
    """

    name: str
    allowed: bool
    required_for_linking: bool


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds in one region.

    Attributes:
        region: "DE" or "US-CA"; empty for what holds where it is not known.
        policies: the default policy of each purpose.
        rules: one per purpose, by name.
        unknown: the outcome while nothing at all is known.
        unanswered: the outcome of an event that carries answers, of which none is to a purpose, while nothing else is known.
    """

    region: str
    policies: Mapping[str, DefaultPolicy]
    rules: tuple[Rule, ...]
    unknown: Outcome
    unanswered: Outcome


@dataclass(frozen=True, slots=True, eq=False)
class WorkspacePurposes:
    """The purposes of one workspace. Equal only to itself, so that what follows from it can be remembered.

    Attributes:
        purposes: by name, sorted.
        policy: of the workspace.
        by_name: the same.
        by_category: the names of the purposes that a category means; a purpose's own name is one of its categories.
        anywhere: what holds where the region is not known.
    """

    purposes: tuple[Purpose, ...]
    policy: ConsentPolicy = field(default_factory=lambda: ConsentPolicy(""))
    by_name: Mapping[str, Purpose] = field(init=False)
    by_category: Mapping[str, tuple[str, ...]] = field(init=False)
    anywhere: Defaults = field(init=False)
    _by_column: tuple[tuple[str, frozenset[str]], ...] = field(init=False)
    _is_regional: bool = field(init=False)
    _is_simple: bool = field(init=False)

    def __post_init__(self) -> None:
        meant: dict[str, list[str]] = {}
        needed: dict[str, set[str]] = {}
        for purpose in self.purposes:
            for category in (purpose.name, *purpose.categories):
                meant.setdefault(category, []).append(purpose.name)
            for column in purpose.columns:
                needed.setdefault(column, set()).add(purpose.name)
        object.__setattr__(self, "by_name", {purpose.name: purpose for purpose in self.purposes})
        object.__setattr__(self, "by_category", {category: tuple(names) for category, names in meant.items()})
        object.__setattr__(self, "_by_column", tuple((column, frozenset(names)) for column, names in sorted(needed.items())))
        is_regional = bool(self.policy.regional_defaults) or any(purpose.regional_defaults for purpose in self.purposes)
        object.__setattr__(self, "_is_regional", is_regional)
        object.__setattr__(self, "_is_simple", not is_regional and not needed)
        object.__setattr__(self, "anywhere", self._defaults_of(""))

    def in_region(self, region: str) -> Defaults:
        """What holds in a region; the same everywhere in a workspace without exceptions."""
        return _defaults(self, region) if self._is_regional else self.anywhere

    def outcome(self, granted: tuple[str, ...], rests_on: tuple[str, ...], linkable: bool, region: str) -> Outcome:
        """The outcome with the columns that are dropped."""
        if self._is_simple:
            return Outcome(granted, rests_on, linkable)
        return Outcome(granted, rests_on, linkable, _dropped(self, granted), region)

    def dropped(self, granted: tuple[str, ...]) -> tuple[str, ...]:
        """The columns that need a purpose which is not granted, sorted."""
        given = frozenset(granted)
        return tuple(column for column, names in self._by_column if not names <= given)

    def _defaults_of(self, region: str) -> Defaults:
        policies = {purpose.name: purpose.policy(self.policy, region) for purpose in self.purposes}
        rules = tuple(
            Rule(purpose.name, policies[purpose.name] is DefaultPolicy.ALLOW, purpose.required_for_linking) for purpose in self.purposes
        )
        unknown = frozenset(name for name, policy in policies.items() if policy is not DefaultPolicy.REQUIRE)
        unanswered = frozenset(rule.name for rule in rules if rule.allowed)
        return Defaults(region, policies, rules, self._without_decision(unknown, region), self._without_decision(unanswered, region))

    def _without_decision(self, granted: frozenset[str], region: str) -> Outcome:
        linkable = all(purpose.name in granted for purpose in self.purposes if purpose.required_for_linking)
        return self.outcome(tuple(sorted(granted)), (), linkable, region)


@lru_cache(maxsize=1_024)
def _defaults(workspace: WorkspacePurposes, region: str) -> Defaults:
    return workspace._defaults_of(region)


@lru_cache(maxsize=1_024)
def _dropped(workspace: WorkspacePurposes, granted: tuple[str, ...]) -> tuple[str, ...]:
    return workspace.dropped(granted)


Purposes = Mapping[str, WorkspacePurposes]
"""An immutable snapshot: workspace → its purposes. Workspaces without purposes are absent."""


def snapshot(purposes: Iterable[Purpose], policies: Iterable[ConsentPolicy] = ()) -> Purposes:
    """All purposes and policies in their newest version, prepared for evaluation."""
    ordered = sorted(purposes, key=lambda purpose: (purpose.workspace_id, purpose.name))
    by_workspace = {policy.workspace_id: policy for policy in policies}
    return {
        workspace: WorkspacePurposes(tuple(own), by_workspace.get(workspace, ConsentPolicy(workspace)))
        for workspace, own in groupby(ordered, key=lambda purpose: purpose.workspace_id)
    }
