"""The consent service's privacy side, as the other services see it: orders on PRIVACY, a gRPC server that takes reports and holdings."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc

from cdi.consent.v1 import consent_service_pb2, consent_service_pb2_grpc, privacy_pb2, privacy_service_pb2_grpc, purpose_pb2
from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.consent.v1.consent_service_pb2 import Subject
from cdi_kernel import topology
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from cdi_testing.eventually import WITHIN_SECONDS

RUNNING = privacy_pb2.PRIVACY_STATUS_RUNNING
Steps = Mapping[str, privacy_pb2.PrivacyStep]


class PrivacySide(privacy_service_pb2_grpc.PrivacyServiceServicer):
    """Remembers what services report and send. While ``away``, it answers UNAVAILABLE."""

    def __init__(self) -> None:
        self.reports: dict[tuple[str, str, int], Steps] = {}
        self.holdings: dict[tuple[str, str], dict[str, list[Any]]] = {}
        self.calls = 0
        self.away = False

    async def ReportSteps(self, request: pb.ReportStepsRequest, context: Any) -> pb.ReportStepsResponse:
        self.calls += 1
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        key = request.request_id, request.service, request.attempt
        kept = self.reports.get(key, {})
        ended = {store for store, step in kept.items() if step.status != RUNNING}
        self.reports[key] = {**kept, **{step.store: step for step in request.steps if step.status != RUNNING or step.store not in ended}}
        return pb.ReportStepsResponse()

    async def SendHoldings(self, request_iterator: AsyncIterator[pb.SendHoldingsRequest], context: Any) -> pb.SendHoldingsResponse:
        sent: dict[str, list[Any]] = defaultdict(list)
        of: tuple[str, str] | None = None
        async for request in request_iterator:
            of = of or (request.request_id, request.service)
            sent[request.holding] += [json.loads(row) for row in request.rows]
        assert of is not None
        self.holdings[of] = {name: rows for name, rows in sent.items() if name}
        return pb.SendHoldingsResponse()

    async def reported(self, order: privacy_pb2.PrivacyOrder, service: str, *, within: float = WITHIN_SECONDS) -> Steps:
        """The steps that a service reports of an order, once none is under way."""
        await eventually(lambda: self._is_done(order, service), within=within)
        return self.so_far(order, service)

    def so_far(self, order: privacy_pb2.PrivacyOrder, service: str) -> Steps:
        """What a service has reported of an order."""
        return self.reports.get((order.request_id, service, order.attempt), {})

    def _is_done(self, order: privacy_pb2.PrivacyOrder, service: str) -> bool:
        known = (order.request_id, service, order.attempt) in self.reports
        return known and all(step.status != RUNNING for step in self.so_far(order, service).values())


class Consents(consent_service_pb2_grpc.ConsentServiceServicer):
    """Grants nothing and needs nothing; suppresses whom it is told to."""

    def __init__(self) -> None:
        self.until: dict[str, datetime] = {}
        """User id → events received until then are suppressed."""
        self.linkable = False
        self.purposes: list[purpose_pb2.Purpose] = []
        self.asked = 0
        """How often for purposes; while ``away``, without an answer."""
        self.away = False

    async def EvaluateConsent(self, request: Any, context: Any) -> consent_service_pb2.EvaluateConsentResponse:
        response = consent_service_pb2.EvaluateConsentResponse()
        for asked in request.inputs:
            until = self.until.get(asked.user_id)
            response.results.add(linkable=self.linkable, suppressed=until is not None and asked.received_time.ToDatetime(UTC) <= until)
        return response

    async def ListPurposes(self, request: Any, context: Any) -> consent_service_pb2.ListPurposesResponse:
        self.asked += 1
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        found = [purpose for purpose in self.purposes if purpose.workspace_id == request.workspace_id]
        return consent_service_pb2.ListPurposesResponse(purposes=found)


@asynccontextmanager
async def privacy_side(*servicers: Any) -> AsyncIterator[tuple[PrivacySide, str]]:
    """The side and its address. ``servicers`` are pairs of a registration and a servicer that the same server has."""
    side = PrivacySide()
    server = grpc.aio.server()
    privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server(side, server)
    for add, servicer in servicers:
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield side, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def order(
    service: str,
    *subjects: tuple[str, str],
    profiles: Sequence[str] = (),
    verb: privacy_pb2.PrivacyVerb.ValueType = privacy_pb2.PRIVACY_VERB_DELETE_INTERNAL,
    at: datetime | None = None,
    **fields: Any,
) -> privacy_pb2.PrivacyOrder:
    """An order about one person for one service."""
    return privacy_pb2.PrivacyOrder(
        **{
            "request_id": builders.message_id(),
            "workspace_id": builders.WORKSPACE,
            "verb": verb,
            "subjects": [Subject(type=kind, id=value) for kind, value in subjects],
            "profile_ids": profiles,
            "order_time": builders.timestamp(at or datetime.now(UTC)),
            "attempt": 1,
            "services": [service],
            **fields,
        }
    )


async def tell(bus: Bus, *orders: privacy_pb2.PrivacyOrder) -> None:
    """Publishes orders as consent does."""
    for each in orders:
        kind = "access" if each.verb == privacy_pb2.PRIVACY_VERB_ACCESS else "erase"
        await bus.publish(
            topology.privacy(kind), each.SerializeToString(), message_id=f"{each.request_id}-{each.attempt}-{builders.message_id()}"
        )
