"""The composition root: resources in the order of the start, released in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from cdi.consent.v1 import privacy_service_pb2, privacy_service_pb2_grpc
from cdi_consent import consumer
from cdi_consent.application import Consent, PurposeBook
from cdi_consent.asking import Asking
from cdi_consent.clients import ProfilesClient
from cdi_consent.convert import written
from cdi_consent.domain.privacy import DAY_US
from cdi_consent.domain.privacy_request import Timing
from cdi_consent.domain.tombstones import Digester
from cdi_consent.evaluating import Evaluating
from cdi_consent.fulfilling import Fulfilling
from cdi_consent.http.app import LIMITS, HttpApp
from cdi_consent.memory import Memory
from cdi_consent.persons import Persons
from cdi_consent.privacy import Privacy
from cdi_consent.reporting import Reporting
from cdi_consent.servicer import FOR_SERVICES, FULL_NAME, ConsentServicer, PrivacyServicer
from cdi_consent.settings import Settings
from cdi_consent.store import (
    LedgerStore,
    PostgresFulfilment,
    PostgresHoldings,
    PostgresLooks,
    PostgresOwnPart,
    PostgresPurposes,
    PostgresRequests,
    PostgresTombstones,
    digester_of,
    prune,
    signing_key_of,
)
from cdi_consent.tombstones import Tombstones
from cdi_runtime import bus as message_bus
from cdi_runtime.rpc import Registration, TokenGuard, channel, serve
from cdi_runtime.service import ServiceContext, serve_http
from cdi_runtime.store import Database, OutboxRelay, Readers


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
        key = settings.privacy_key.get_secret_value().encode() if settings.privacy_key else b""
        digest = await digester_of(database, key)
        looks = PostgresLooks(await stack.enter_async_context(Readers(database, 1)))
        await stack.enter_async_context(context.background(prune(database), "changes"))
        memory, tombstones = Memory(looks, settings.remembered_ids), Tombstones(PostgresTombstones(database), digest)
        evaluating = Evaluating(ledger, book, memory, tombstones, _now_us, written)
        # Identity is no part of readiness: evaluation does not need it.
        profiles = ProfilesClient(await stack.enter_async_context(channel(settings.identity_target)))
        servicer = ConsentServicer(Consent(ledger, purposes, book, _now_us), evaluating, Asking(ledger, book, profiles))
        registration = Registration(servicer.add_to_server, servicer, FULL_NAME)
        await stack.enter_async_context(context.background(_follow(context, bus, Persons(ledger, book, profiles, _now_us)), "persons"))
        privacy, fulfilling = await _privacy(settings, database, digest, profiles, relay)
        await stack.enter_async_context(context.background(privacy.reporting.run(), "reports"))
        await stack.enter_async_context(context.background(fulfilling.run(), "privacy"))
        await stack.enter_async_context(context.background(fulfilling.expire(), "archives"))
        officer, guard = PrivacyServicer(privacy), TokenGuard(settings.privacy_token_hashes)
        requests = Registration(
            privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server,
            officer,
            privacy_service_pb2.DESCRIPTOR.services_by_name["PrivacyService"].full_name,
            guard,
            FOR_SERVICES,
        )
        await stack.enter_async_context(serve(context, settings.grpc_address, registration, requests))
        if settings.http_address is not None:
            serving = serve_http(settings.http_address, HttpApp(officer, guard).answer, LIMITS)
            context.announce("http", await stack.enter_async_context(serving))
        yield


async def _privacy(
    settings: Settings, database: Database, digest: Digester, people: ProfilesClient, relay: OutboxRelay
) -> tuple[Privacy, Fulfilling]:
    """Privacy requests: what the doors ask, and the worker behind it."""
    timing = Timing(
        round(settings.privacy_retell_seconds * 1e6),
        round(settings.privacy_second_look_seconds * 1e6),
        round(settings.privacy_archive_days * DAY_US),
    )
    signing_key = await signing_key_of(database, settings.signing_key())
    store = PostgresFulfilment(database, digest, signing_key, timing, relay.wake)
    holdings = PostgresHoldings(database)
    fulfilling = Fulfilling(store, PostgresOwnPart(database, digest), holdings, people, _now_us)
    reporting = Reporting(store, _now_us)
    return Privacy(PostgresRequests(database, digest), store, reporting, holdings, _now_us, fulfilling.wake), fulfilling


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
