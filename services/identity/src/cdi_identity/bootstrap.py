"""Composition root: Postgres, the bus for the outbox and the changes, the warehouse, the use cases, gRPC; released in reverse."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from cdi_identity import consumer
from cdi_identity.application import Identities
from cdi_identity.change_feed import hearing_changes
from cdi_identity.clients.consent import ConsentClient
from cdi_identity.clients.warehouse import NoWarehouse, WarehouseHistory
from cdi_identity.clients.warehouse_archive import NoArchive, WarehouseArchive
from cdi_identity.clients.warehouse_query import WarehouseQuery
from cdi_identity.computing import ComputedTraits, Counting
from cdi_identity.filling import Filling
from cdi_identity.onboarding import Audiences
from cdi_identity.operating import Operations
from cdi_identity.ports import EventHistory
from cdi_identity.ports_computing import EventArchive
from cdi_identity.privacy import Privacy
from cdi_identity.reading import Profiles
from cdi_identity.retaining import retain
from cdi_identity.ruling import RuleBook, Ruling
from cdi_identity.servicer import audiences as audiences_servicer
from cdi_identity.servicer import computed_traits as computed_servicer
from cdi_identity.servicer import profiles as profiles_servicer
from cdi_identity.servicer.identity import registration
from cdi_identity.settings import Settings
from cdi_identity.store.computing import PostgresComputedTraits
from cdi_identity.store.erasing import PostgresPersons
from cdi_identity.store.graph import PostgresGraph, indexed_only
from cdi_identity.store.people import PostgresPeople
from cdi_identity.store.profiles import PostgresProfiles
from cdi_identity.store.retention import PostgresRetention
from cdi_identity.supervisor import Supervisor
from cdi_identity.watching import WatchedProfiles, Watchers
from cdi_privacy import PrivacyClient, obeying
from cdi_runtime import bus, rpc
from cdi_runtime.service import ServiceContext
from cdi_runtime.store import Database, OutboxRelay, Readers


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
        if settings.demotion_days is not None:
            forgetting = retain(PostgresRetention(database), settings.demotion_days, now_us)
            await stack.enter_async_context(context.background(forgetting, "retention"))
        readers = await stack.enter_async_context(Readers(database, READERS))
        history, archive = await _warehouse(settings, stack)
        profiles = Profiles(PostgresProfiles(readers), history, now_us)
        graph = PostgresGraph(database, readers)
        identities = Identities(graph, RuleBook(), now_us, relay.wake)
        served = registration(identities, profiles, Ruling(graph, now_us), Operations(graph, profiles, now_us, relay.wake))
        watchers = Watchers()
        await stack.enter_async_context(hearing_changes(connection, watchers))
        reading = profiles_servicer.registration(profiles, WatchedProfiles(profiles, watchers))
        exporting = audiences_servicer.registration(Audiences(PostgresPeople(database), await _consent(settings, stack)))
        await _obey(settings, context, connection, Privacy(PostgresPersons(database), now_us, relay.wake), stack)
        computed = PostgresComputedTraits(database, readers)
        counting = Counting(computed, now_us, relay.wake)
        filling = Filling(computed, counting, archive, consumer.EnrichedStream(connection, settings.partitions), now_us)
        supervisor = Supervisor(computed, partial(_reading, settings, context, connection, counting, filling), now_us, relay.wake)
        await stack.enter_async_context(context.background(supervisor.run(), "computed-traits"))
        computing = computed_servicer.registration(ComputedTraits(computed, now_us))
        await stack.enter_async_context(rpc.serve(context, settings.grpc_address, served, reading, exporting, computing))
        stack.callback(watchers.close)  # first of all: the server waits for calls that run
        yield


async def _warehouse(settings: Settings, stack: AsyncExitStack) -> tuple[EventHistory, EventArchive]:
    """The warehouse, as far as there is one."""
    if not settings.warehouse_address:
        return NoWarehouse(), NoArchive()
    token = settings.warehouse_token.get_secret_value()
    query = WarehouseQuery(await stack.enter_async_context(rpc.channel(settings.warehouse_address, token=token)))
    return WarehouseHistory(query), WarehouseArchive(query)


@asynccontextmanager
async def _reading(
    settings: Settings, context: ServiceContext, connection: bus.Bus, counting: Counting, filling: Filling
) -> AsyncIterator[None]:
    """Counts the stream and fills new definitions for the time of the block. No part of readiness: resolving does not need it."""
    spec, handler = consumer.events_spec(context.name, settings.partitions), consumer.Consumer(counting)
    async with bus.reading(connection, spec, handler.events, context), context.background(filling.run(), "computed-traits-filling"):
        yield


async def _obey(settings: Settings, context: ServiceContext, connection: bus.Bus, privacy: Privacy, stack: AsyncExitStack) -> None:
    """Obeys privacy orders, as far as there is somebody to report to. No part of readiness: resolving does not need it."""
    if settings.consent_target:
        client = PrivacyClient(await stack.enter_async_context(rpc.channel(settings.consent_target)), context.name)
        await stack.enter_async_context(obeying(connection, context.name, privacy, client, context))


async def _consent(settings: Settings, stack: AsyncExitStack) -> ConsentClient | None:
    """The consent service, as far as there is one. No part of readiness: resolving does not need it."""
    if not settings.consent_target:
        return None
    return ConsentClient(await stack.enter_async_context(rpc.channel(settings.consent_target)))


READERS = 6
"""Connections for looking up batches and reading profiles: as many statements at once as keep a few cores of Postgres busy."""

POOL_SIZE = 6 + READERS
"""Connections: one for the relay, one for the batch whose turn it is, the rest for operators, exports and computed traits."""


def now_us() -> int:
    """Microseconds since 1970 by the system clock."""
    return time.time_ns() // 1_000
