"""Consent and enrichment, as the loader asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import purpose_pb2
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.enrichment.v1.enrichment_service_pb2_grpc import EnrichmentServiceStub
from cdi_kernel.faults import Fault, Unavailable
from cdi_runtime.rpc import call
from cdi_warehouse_loader.domain.planned_types import NONE_PLANNED, PlannedTypes, planned_types
from cdi_warehouse_loader.domain.withholding import NeedsOf, needs_of

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub
    from cdi.enrichment.v1.enrichment_service_pb2_grpc import EnrichmentServiceAsyncStub

DEADLINE_SECONDS: Final = 5.0
PLAN_SECONDS: Final = 1.0
"""A load waits so long for the plans of a workspace that it meets, once."""

PAGE: Final = 1_000
PEER: Final = "consent"


class ConsentPurposes:
    """``PurposeReader`` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: ConsentServiceAsyncStub = ConsentServiceStub(channel)

    async def needs(self, workspace_id: str) -> NeedsOf:
        """See ``PurposeReader``."""
        purposes: list[purpose_pb2.Purpose] = []
        token = ""
        while True:
            request = pb.ListPurposesRequest(workspace_id=workspace_id, page_size=PAGE, page_token=token)
            try:
                page = await call(self._stub.ListPurposes, request, timeout=DEADLINE_SECONDS, peer=PEER)
            except Fault as fault:
                # Whatever is wrong there is wrong with no event: all of them wait.
                raise Unavailable(PEER, f"consent does not tell its purposes: {fault.reason_name}") from fault
            purposes += page.purposes
            token = page.next_page_token
            if not token:
                return needs_of((each.name, rule.warehouse, rule.rows, rule.columns) for each in purposes for rule in each.warehouses)


class EnrichmentPlans:
    """``PlanReader`` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: EnrichmentServiceAsyncStub = EnrichmentServiceStub(channel)

    async def planned(self, workspace_id: str) -> PlannedTypes:
        """See ``PlanReader``."""
        rules: list[tuple[str, str, str]] = []
        request = enrichment_service_pb2.ListTrackingPlansRequest(workspace_id=workspace_id, page_size=PAGE)
        while True:
            try:
                page = await call(self._stub.ListTrackingPlans, request, timeout=PLAN_SECONDS, peer="enrichment")
            except Fault as fault:
                raise Unavailable("enrichment", f"enrichment does not tell its plans: {fault.reason_name}") from fault
            rules += [(rule.type, rule.event, rule.json_schema) for plan in page.tracking_plans for rule in plan.rules]
            if not page.next_page_token:
                return planned_types(rules)
            request.page_token = page.next_page_token


class NoPlans:
    """``PlanReader`` of a loader that knows no enrichment service."""

    async def planned(self, workspace_id: str) -> PlannedTypes:
        """See ``PlanReader``."""
        return NONE_PLANNED


class NoPurposes:
    """``PurposeReader`` of a loader without a consent service: nothing is said of warehouses."""

    async def needs(self, workspace_id: str) -> NeedsOf:
        """See ``PurposeReader``."""
        return {}
