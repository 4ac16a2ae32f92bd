"""gRPC in: ``cdi.router.v1.RouterService``."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from cdi.event.v1.event_pb2 import Event
from cdi.router.v1 import router_service_pb2 as pb
from cdi.router.v1 import router_service_pb2_grpc
from cdi_kernel.faults import InvalidArgument
from cdi_router import convert
from cdi_router.application.needs import Needs, needing
from cdi_router.domain.destination import Destination
from cdi_router.domain.explanation import explain
from cdi_router.store.documents import Documents, StoredDestination
from cdi_router.store.reports import Reports
from cdi_router.supervisor import Supervisor

APPLY_SECONDS: Final = 2.0
"""How soon an applied destination is in operation (router_service.proto)."""


class RouterServicer(router_service_pb2_grpc.RouterServiceServicer):
    """Destinations and what was delivered."""

    def __init__(self, documents: Documents, reports: Reports, supervisor: Supervisor, needs: Needs) -> None:
        self._documents = documents
        self._reports = reports
        self._supervisor = supervisor
        self._needs = needs

    async def ApplyDestination(self, request: pb.ApplyDestinationRequest, context: Any) -> pb.ApplyDestinationResponse:
        """See the protocol."""
        convert.destination_of(request.destination)
        stored, changed = await self._documents.apply(request.destination)
        await self._supervisor.follow(stored, APPLY_SECONDS)
        return pb.ApplyDestinationResponse(destination=stored.document, changed=changed)

    async def ListDestinations(self, request: pb.ListDestinationsRequest, context: Any) -> pb.ListDestinationsResponse:
        """See the protocol."""
        size = convert.page_size(request.page_size)
        found = await self._documents.page(request.workspace_id, request.page_token, size + 1)
        page = [stored.document for stored in found[:size]]
        return pb.ListDestinationsResponse(destinations=page, next_page_token=page[-1].name if len(found) > size else "")

    async def ListDeadDeliveries(self, request: pb.ListDeadDeliveriesRequest, context: Any) -> pb.ListDeadDeliveriesResponse:
        """See the protocol."""
        size = convert.page_size(request.page_size)
        found = await self._reports.dead(request.workspace_id, request.destination, request.page_token, size + 1)
        page = [convert.dead_delivery(row, request.workspace_id) for row in found[:size]]
        return pb.ListDeadDeliveriesResponse(deliveries=page, next_page_token=page[-1].delivery_id if len(found) > size else "")

    async def ExplainDelivery(self, request: pb.ExplainDeliveryRequest, context: Any) -> pb.ExplainDeliveryResponse:
        """See the protocol."""
        event = _event(request.event)
        fates = await self._reports.fates(event.workspace_id, event.partition, request.enriched_sequence, event.message_id)
        known = {stored.destination_id: self._destination(stored) for stored in await self._documents.all()}
        pairs = sorted(((known[fate.destination_id], fate) for fate in fates), key=lambda pair: pair[0].name)
        told = [(destination.name, explain(destination, event, request.enriched_sequence, fate)) for destination, fate in pairs]
        return pb.ExplainDeliveryResponse(explanations=[convert.explanation(name, explained) for name, explained in told])

    def _destination(self, stored: StoredDestination) -> Destination:
        destination = convert.destination_of(stored.document)
        return needing(destination, self._needs.of(destination.workspace_id, destination.name) or ())

    async def CountOutcomes(self, request: pb.CountOutcomesRequest, context: Any) -> pb.CountOutcomesResponse:
        """See the protocol."""
        return pb.CountOutcomesResponse(counts=[convert.count(count) for count in await self._reports.counts()])


def _event(serialized: bytes) -> Event:
    try:
        return Event.FromString(serialized)
    except DecodeError as error:
        raise InvalidArgument("event is not a serialized cdi.event.v1.Event", metadata={"field": "event"}) from error
