"""gRPC in: ``cdi.enrichment.v1.EnrichmentService``."""

from __future__ import annotations

from typing import Any

from cdi.enrichment.v1 import enrichment_service_pb2 as pb
from cdi.enrichment.v1 import enrichment_service_pb2_grpc as pb_grpc
from cdi_enrichment import convert
from cdi_enrichment.application import Questions, TrackingPlans
from cdi_runtime.rpc import Registration

FULL_NAME = pb.DESCRIPTOR.services_by_name["EnrichmentService"].full_name


class EnrichmentServicer(pb_grpc.EnrichmentServiceServicer):
    """The methods; faults are rendered by the interceptor."""

    def __init__(self, plans: TrackingPlans, questions: Questions) -> None:
        self._plans = plans
        self._questions = questions

    async def ApplyTrackingPlan(self, request: pb.ApplyTrackingPlanRequest, context: Any) -> pb.ApplyTrackingPlanResponse:
        """Makes a plan be as given."""
        plan, changed = await self._plans.apply(request.tracking_plan)
        return pb.ApplyTrackingPlanResponse(tracking_plan=plan, changed=changed)

    async def ListTrackingPlans(self, request: pb.ListTrackingPlansRequest, context: Any) -> pb.ListTrackingPlansResponse:
        """A page of plans; one more than asked tells whether there is another page."""
        size = convert.page_size(request.page_size)
        plans = await self._plans.page(request.workspace_id, convert.page_start(request.page_token), size + 1)
        token = convert.page_token(plans[size - 1].name) if len(plans) > size else ""
        return pb.ListTrackingPlansResponse(tracking_plans=plans[:size], next_page_token=token)

    async def ExplainEvent(self, request: pb.ExplainEventRequest, context: Any) -> pb.ExplainEventResponse:
        """Where an event stands."""
        return convert.explanation(await self._questions.explain(request.workspace_id, request.message_id))

    async def CountOutcomes(self, request: pb.CountOutcomesRequest, context: Any) -> pb.CountOutcomesResponse:
        """The counts of this stage."""
        return pb.CountOutcomesResponse(counts=await self._questions.count_outcomes())


def registration(plans: TrackingPlans, questions: Questions) -> Registration:
    """The service, ready to be served."""
    return Registration(pb_grpc.add_EnrichmentServiceServicer_to_server, EnrichmentServicer(plans, questions), FULL_NAME)
