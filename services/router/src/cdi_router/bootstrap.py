"""The composition root: resources in start order, released in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from cdi.router.v1 import router_service_pb2, router_service_pb2_grpc
from cdi_privacy import PrivacyClient, obeying
from cdi_router.application.deletions import Deletions
from cdi_router.application.needs import Needs
from cdi_router.application.privacy import Privacy
from cdi_router.clients import ConsentClient, reporting
from cdi_router.convert import destination_of
from cdi_router.destinations.event_json import event_json
from cdi_router.destinations.registry import DELETING
from cdi_router.domain.destination import Destination
from cdi_router.operation import Operator, SystemClock
from cdi_router.servicer import RouterServicer
from cdi_router.settings import Settings, environment
from cdi_router.store.deletions import PostgresDeletions
from cdi_router.store.deliveries import PostgresDeliveries
from cdi_router.store.documents import Documents
from cdi_router.store.persons import PostgresPersons
from cdi_router.store.reports import Reports
from cdi_router.supervisor import Supervisor
from cdi_router.teller import Teller
from cdi_runtime import rpc
from cdi_runtime.bus import connect
from cdi_runtime.service import ServiceContext
from cdi_runtime.store import Database

SERVICE = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """The router, running while the block runs."""
    assert settings.database_url is not None, "checked before the start"
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(url, pool_size=settings.database_pool_size))
        await stack.enter_async_context(context.probing("database", database.ping))
        bus = await stack.enter_async_context(connect(settings.nats_url, context.name))
        context.readiness.add("nats", bus.ready)
        channel = await stack.enter_async_context(rpc.channel(settings.consent_target))
        consent = ConsentClient(channel, settings.consent_timeout_seconds)
        documents, reports = Documents(database), Reports(database)
        operator = Operator(context, bus, settings.partitions, PostgresDeliveries(database), consent, environment())
        needs = Needs(consent)
        supervisor = Supervisor(context, documents, reports, needs, operator.operate)
        stack.push_async_callback(supervisor.close)
        await stack.enter_async_context(context.background(supervisor.run(), "destinations"))
        clock, deletions, destinations = SystemClock(), PostgresDeletions(database), partial(_destinations, documents)
        privacy = Privacy(PostgresPersons(database), deletions, destinations, clock, event_json)
        client = PrivacyClient(channel, context.name)

        def calls(destination_id: int, destination: Destination) -> Deletions:
            opened = partial(DELETING[destination.kind], destination, environment())
            return Deletions(destination_id, destination, opened, deletions, reporting(client), clock)

        await stack.enter_async_context(context.background(Teller(deletions, destinations, calls, clock).run(), "deletions"))
        await stack.enter_async_context(obeying(bus, context.name, privacy, client, context))
        servicer = RouterServicer(documents, reports, supervisor, needs)
        registration = rpc.Registration(router_service_pb2_grpc.add_RouterServiceServicer_to_server, servicer, SERVICE)
        await stack.enter_async_context(rpc.serve(context, settings.grpc_address, registration))
        yield


async def _destinations(documents: Documents) -> list[tuple[int, Destination]]:
    return [(stored.destination_id, destination_of(stored.document)) for stored in await documents.all()]
