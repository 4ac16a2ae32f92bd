"""Identity's kinds: IdentityRules and ComputedTrait."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from cdi.identity.v1 import computed_traits_service_pb2, identity_service_pb2, rules_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import Count, Metadata, Strict, Text, WorkspaceMetadata
from cdi_cli.peers import Peers, ask


class IdentifierSpec(Strict):
    """The rule for one type of identifier; what is left out takes identity's default."""

    type: Text
    limit: Count = 0
    window: Literal["ever", "weekly", "monthly", "annually"] = "ever"
    priority: Count = 0
    unique: bool = False
    paths: list[str] = Field(default=[])
    disabled: bool = False


class IdentityRulesSpec(Strict):
    """What links events to one person, how many of each a person may have, and which traits events leave with."""

    identifiers: list[IdentifierSpec] = Field(default=[])
    blocked_values: list[str] = Field(default=[])
    blocked_patterns: list[str] = Field(default=[])
    max_merges: Count = 0
    max_identifiers: Count = 0
    event_traits: list[str] = Field(default=[])


class ConditionSpec(Strict):
    """What an event has to fulfil."""

    path: Text
    operator: Literal["in", "notIn", "less", "greater", "contains", "exists"]
    values: list[Any] = Field(default=[])


class ComputedTraitSpec(Strict):
    """What the events of a person come to."""

    aggregation: Literal["eventCounter", "sum", "average", "min", "max", "mostFrequent", "first", "last", "uniqueList", "uniqueCount"]
    event_type: Literal["track", "page", "screen", "identify", "group"] = "track"
    event_names: list[str] = Field(default=[])
    path: str = ""
    conditions: list[ConditionSpec] = Field(default=[])
    window_seconds: Count = 0


class IdentityRulesDocument(Document):
    """Kind IdentityRules. A workspace has one; its name is "default"."""

    kind: Literal["IdentityRules"]
    metadata: WorkspaceMetadata
    spec: IdentityRulesSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        rules = rules_pb2.IdentityRules(
            workspace_id=self.metadata.workspace,
            identifiers=map(_identifier, self.spec.identifiers),
            blocked_values=self.spec.blocked_values,
            blocked_patterns=self.spec.blocked_patterns,
            max_merges=self.spec.max_merges,
            max_identifiers=self.spec.max_identifiers,
            event_traits=self.spec.event_traits,
        )
        answer = await ask((await peers.identity()).ApplyIdentityRules, identity_service_pb2.ApplyIdentityRulesRequest(rules=rules))
        return Applied(answer.rules.version, answer.changed)


class ComputedTraitDocument(Document):
    """Kind ComputedTrait."""

    kind: Literal["ComputedTrait"]
    metadata: Metadata
    spec: ComputedTraitSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        trait = computed_traits_service_pb2.ComputedTrait(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            aggregation=computed_traits_service_pb2.Aggregation.Value(f"AGGREGATION_{_constant(self.spec.aggregation)}"),
            event_type=self.spec.event_type,
            event_names=self.spec.event_names,
            path=self.spec.path,
            conditions=map(_condition, self.spec.conditions),
        )
        if self.spec.window_seconds:
            trait.window.FromSeconds(self.spec.window_seconds)
        request = computed_traits_service_pb2.ApplyComputedTraitRequest(trait=trait)
        answer = await ask((await peers.computed_traits()).ApplyComputedTrait, request)
        return Applied(answer.trait.version, answer.changed)


def _identifier(spec: IdentifierSpec) -> rules_pb2.IdentifierRule:
    fields = spec.model_dump() | {"window": rules_pb2.LimitWindow.Value(f"LIMIT_WINDOW_{spec.window.upper()}")}
    return rules_pb2.IdentifierRule(**fields)


def _condition(spec: ConditionSpec) -> computed_traits_service_pb2.Condition:
    return computed_traits_service_pb2.Condition(
        path=spec.path,
        operator=computed_traits_service_pb2.ConditionOperator.Value(f"CONDITION_OPERATOR_{_constant(spec.operator)}"),
        values=map(json.dumps, spec.values),
    )


def _constant(word: str) -> str:
    """``notIn`` → ``NOT_IN``."""
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in word)
