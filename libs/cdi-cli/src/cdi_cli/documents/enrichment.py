"""Enrichment's kind: TrackingPlan."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import Field

from cdi.enrichment.v1 import enrichment_service_pb2, tracking_plan_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import EventType, Metadata, Name, Strict
from cdi_cli.peers import Peers, ask

Policy = Literal["block", "forward"]

_POLICIES: Final = {"block": tracking_plan_pb2.VIOLATION_POLICY_BLOCK, "forward": tracking_plan_pb2.VIOLATION_POLICY_FORWARD}


class EventRuleSpec(Strict):
    """What one event must look like: a JSON Schema over its properties, traits and context."""

    type: EventType
    event: str = ""
    json_schema: dict[str, Any] = Field(alias="schema")


class TrackingPlanSpec(Strict):
    """Which events the sources may send."""

    sources: list[Name]
    rules: list[EventRuleSpec] = Field(default=[])
    unplanned_events: Policy = "block"
    violations: Policy = "block"


class TrackingPlanDocument(Document):
    """Kind TrackingPlan."""

    kind: Literal["TrackingPlan"]
    metadata: Metadata
    spec: TrackingPlanSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        plan = tracking_plan_pb2.TrackingPlan(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            source_ids=self.spec.sources,
            rules=[
                tracking_plan_pb2.EventRule(type=rule.type, event=rule.event, json_schema=json.dumps(rule.json_schema))
                for rule in self.spec.rules
            ],
            unplanned_events=_POLICIES[self.spec.unplanned_events],
            violations=_POLICIES[self.spec.violations],
        )
        request = enrichment_service_pb2.ApplyTrackingPlanRequest(tracking_plan=plan)
        answer = await ask((await peers.enrichment()).ApplyTrackingPlan, request)
        return Applied(answer.tracking_plan.version, answer.changed)
