"""Composition root: Postgres, the bus for the outbox, the use cases, gRPC; released in reverse."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cdi_identity.application import Identities
from cdi_identity.clients.consent import ConsentClient
from cdi_identity.onboarding import Audiences
from cdi_identity.operating import Operations
from cdi_identity.ruling import RuleBook, Ruling
from cdi_identity.servicer import audiences as audiences_servicer
from cdi_identity.servicer.identity import registration
from cdi_identity.settings import Settings
from cdi_identity.store.graph import PostgresGraph, indexed_only
from cdi_identity.store.people import PostgresPeople
from cdi_runtime import bus, rpc
from cdi_runtime.service import ServiceContext
from cdi_runtime.store import Database, OutboxRelay


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Runs the service for the time of the block."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(settings.database_url.get_secret_value(), pool_size=POOL_SIZE))
        indexed_only(database)
        await stack.enter_async_context(context.probing("database", database.ping))
        connection = await stack.enter_async_context(bus.connect(settings.nats_url, context.name))
        context.readiness.add("nats", connection.ready)
        relay = OutboxRelay(database, connection, service=context.name)
        context.readiness.add("outbox", relay.check)
        await stack.enter_async_context(context.background(relay.run(), "outbox-relay"))
        graph = PostgresGraph(database)
        identities = Identities(graph, RuleBook(), now_us, relay.wake)
        served = registration(identities, Ruling(graph, now_us), Operations(graph, now_us, relay.wake))
        consent = None
        if settings.consent_target:
            # No part of readiness: resolving does not need it.
            consent = ConsentClient(await stack.enter_async_context(rpc.channel(settings.consent_target)))
        audiences = Audiences(PostgresPeople(database), consent)
        registrations = (served, audiences_servicer.registration(audiences))
        await stack.enter_async_context(rpc.serve(context, settings.grpc_address, *registrations))
        yield


POOL_SIZE = 8
"""Connections: one for the relay, one for the batch whose turn it is, the rest for reading."""


def now_us() -> int:
    """Microseconds since 1970 by the system clock."""
    return time.time_ns() // 1_000
