"""The services of a running suite over gRPC: one channel each, opened when first used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc

from cdi.collector.v1.collector_service_pb2_grpc import SourcesServiceStub
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceStub
from cdi.enrichment.v1.enrichment_service_pb2_grpc import EnrichmentServiceStub
from cdi.identity.v1.audiences_service_pb2_grpc import AudiencesServiceStub
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi.router.v1.router_service_pb2_grpc import RouterServiceStub
from cdi.warehouse.v1.clean_room_service_pb2_grpc import CleanRoomServiceStub
from cdi.warehouse.v1.warehouse_service_pb2_grpc import WarehouseServiceStub
from cdi_cli.suite import Endpoints
from cdi_runtime.rpc import call, channel

if TYPE_CHECKING:  # mypy-protobuf declares them, the generated modules do not have them
    from cdi.collector.v1.collector_service_pb2_grpc import SourcesServiceAsyncStub
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub
    from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceAsyncStub
    from cdi.enrichment.v1.enrichment_service_pb2_grpc import EnrichmentServiceAsyncStub
    from cdi.identity.v1.audiences_service_pb2_grpc import AudiencesServiceAsyncStub
    from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceAsyncStub
    from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceAsyncStub
    from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceAsyncStub
    from cdi.router.v1.router_service_pb2_grpc import RouterServiceAsyncStub
    from cdi.warehouse.v1.clean_room_service_pb2_grpc import CleanRoomServiceAsyncStub
    from cdi.warehouse.v1.warehouse_service_pb2_grpc import WarehouseServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

DEADLINE_SECONDS = 15.0
"""Of one call; a query has ten seconds of its own."""


class Peers:
    """Stubs of the services. Made by ``connect_peers``."""

    def __init__(self, endpoints: Endpoints, stack: AsyncExitStack) -> None:
        self._endpoints = endpoints
        self._stack = stack
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    async def sources(self) -> SourcesServiceAsyncStub:
        """Sources, of the collector."""
        return SourcesServiceStub(await self._channel("collector"))

    async def enrichment(self) -> EnrichmentServiceAsyncStub:
        """Tracking plans and outcomes."""
        return EnrichmentServiceStub(await self._channel("enrichment"))

    async def consent(self) -> ConsentServiceAsyncStub:
        """Purposes and the ledger."""
        return ConsentServiceStub(await self._channel("consent"))

    async def privacy(self) -> PrivacyServiceAsyncStub:
        """Privacy requests, of consent."""
        return PrivacyServiceStub(await self._channel("consent"))

    async def audiences(self) -> AudiencesServiceAsyncStub:
        """Exports of people."""
        return AudiencesServiceStub(await self._channel("identity"))

    async def computed_traits(self) -> ComputedTraitsServiceAsyncStub:
        """Computed traits, of identity."""
        return ComputedTraitsServiceStub(await self._channel("identity"))

    async def identity(self) -> IdentityServiceAsyncStub:
        """The identity graph and its rules."""
        return IdentityServiceStub(await self._channel("identity"))

    async def profiles(self) -> ProfilesServiceAsyncStub:
        """Profiles, of identity."""
        return ProfilesServiceStub(await self._channel("identity"))

    async def router(self) -> RouterServiceAsyncStub:
        """Destinations and deliveries."""
        return RouterServiceStub(await self._channel("router"))

    async def warehouse(self) -> WarehouseServiceAsyncStub:
        """Warehouses and queries."""
        return WarehouseServiceStub(await self._channel("warehouse-loader"))

    async def clean_rooms(self, token: str = "") -> CleanRoomServiceAsyncStub:
        """Clean rooms, as the partner of a token; without one as who administers the suite."""
        return CleanRoomServiceStub(await self._channel("warehouse-loader", token))

    async def _channel(self, service: str, token: str = "") -> grpc.aio.Channel:
        """The channel to a service, as who administers the suite unless another token is given."""
        token = token or self._endpoints.admin_token
        key = (service, token)
        if key not in self._channels:
            self._channels[key] = await self._stack.enter_async_context(channel(self._endpoints.grpc(service), token=token))
        return self._channels[key]


@asynccontextmanager
async def connect_peers(endpoints: Endpoints) -> AsyncIterator[Peers]:
    """The services for the time of the block."""
    async with AsyncExitStack() as stack:
        yield Peers(endpoints, stack)


async def ask(method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
    """One call.

    Raises:
        Fault: what the service answered, or ``Unavailable``.
    """
    return await call(method, request, timeout=DEADLINE_SECONDS, peer="service")
