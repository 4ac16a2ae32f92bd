"""The composition root: resources in the order of the start, released in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from cdi.consent.v1 import consent_service_pb2, consent_service_pb2_grpc
from cdi_consent import consumer
from cdi_consent.application import Consent, PurposeBook
from cdi_consent.asking import Asking
from cdi_consent.clients import ProfilesClient
from cdi_consent.persons import Persons
from cdi_consent.servicer import ConsentServicer
from cdi_consent.settings import Settings
from cdi_consent.store import LedgerStore, PostgresPurposes
from cdi_runtime import bus as message_bus
from cdi_runtime.rpc import Registration, channel, serve
from cdi_runtime.service import ServiceContext
from cdi_runtime.store import Database, OutboxRelay


@contextlib.asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Consent as it runs. The bus is no part of readiness: without it the outbox waits, and evaluation goes on."""
    assert settings.database_url is not None, "run_service has verified the database"
    url = settings.database_url.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(url, pool_size=settings.database_connections))
        await stack.enter_async_context(context.probing("database", database.ping))
        bus = await stack.enter_async_context(message_bus.connect(settings.nats_url, context.name))
        relay = OutboxRelay(database, bus, service=context.name)
        await stack.enter_async_context(context.background(relay.run(), "outbox"))
        purposes = PostgresPurposes(database)
        book = PurposeBook(purposes)
        await book.reload()
        await stack.enter_async_context(context.background(book.keep_current(), "purposes"))
        ledger = LedgerStore(database, relay.wake)
        consent = Consent(ledger, purposes, book, _now_us)
        # Identity is no part of readiness: evaluation does not need it.
        profiles = ProfilesClient(await stack.enter_async_context(channel(settings.identity_target)))
        registration = Registration(
            consent_service_pb2_grpc.add_ConsentServiceServicer_to_server,
            ConsentServicer(consent, Asking(ledger, book, profiles)),
            consent_service_pb2.DESCRIPTOR.services_by_name["ConsentService"].full_name,
        )
        await stack.enter_async_context(context.background(_follow(context, bus, Persons(ledger, book, profiles, _now_us)), "persons"))
        await stack.enter_async_context(serve(context, settings.grpc_address, registration))
        yield


async def _follow(context: ServiceContext, bus: message_bus.Bus, persons: Persons) -> None:
    """Follows merges, splits and denials until cancelled. No part of readiness: while identity is away they wait in their streams."""
    handlers = consumer.Consumer(persons)
    async with (
        message_bus.reading(bus, consumer.identity_spec(context.name), handlers.identity, context),
        message_bus.reading(bus, consumer.consent_spec(context.name), handlers.consent, context),
    ):
        await asyncio.Event().wait()


def _now_us() -> int:
    return time.time_ns() // 1_000
