"""Composition root: Postgres, the bus, consent and identity, plans, gRPC, the reader; released in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Final

from cdi.event.v1 import event_pb2
from cdi_enrichment.application import IdentifierPlaces, Questions, TrackingPlans
from cdi_enrichment.clients import ConsentClient, IdentityClient
from cdi_enrichment.consumer import Consumer, Outside
from cdi_enrichment.enrichers import Enrichers, ReferenceFiles
from cdi_enrichment.servicer import registration
from cdi_enrichment.settings import Settings
from cdi_enrichment.store import ClaimStore, PlanStore, ProgressStore
from cdi_kernel.faults import Transient
from cdi_kernel.topology import StreamName
from cdi_privacy import NothingHeld, PrivacyClient, obeying
from cdi_runtime import bus, rpc
from cdi_runtime.service import ServiceContext, logger
from cdi_runtime.store import Database

LANES: Final = 4
"""Batches under way at once; they overlap their waits for consent, identity, Postgres and NATS."""

POOL_SIZE: Final = LANES + 3
"""Connections: one per lane, the rest for plans, epochs, probes and RPCs."""

EPOCH_CHECK_SECONDS: Final = 60.0

HELD: Final = {"dedupe_window": "holds digests of message ids only", "COLLECTED": "events of erased people end in enrichment, replayed too"}
"""What privacy orders find here."""

_log = logger(__name__)


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Runs the service for the time of the block."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(settings.database_url.get_secret_value(), pool_size=POOL_SIZE))
        await stack.enter_async_context(context.probing("database", database.ping))
        connection = await stack.enter_async_context(bus.connect(settings.nats_url, context.name))
        context.readiness.add("nats", connection.ready)
        consenting = await stack.enter_async_context(rpc.channel(settings.consent_target))
        consent = ConsentClient(consenting)
        await stack.enter_async_context(context.probing("consent", consent.ping))
        identity = IdentityClient(await stack.enter_async_context(rpc.channel(settings.identity_target)))
        await stack.enter_async_context(context.probing("identity", identity.ping))

        claims, progress, plans = ClaimStore(database), ProgressStore(database), TrackingPlans(PlanStore(database))
        await plans.reload()
        await stack.enter_async_context(context.background(plans.follow(), "plans"))
        await stack.enter_async_context(context.background(_open_epochs(claims), "claim-epochs"))
        await stack.enter_async_context(rpc.serve(context, settings.grpc_address, registration(plans, Questions(claims, progress))))

        enrichers = Enrichers(ReferenceFiles(settings.geo_database), disabled=settings.disabled_enrichers)
        places = IdentifierPlaces(identity)
        await stack.enter_async_context(context.background(places.follow(), "identity-rules"))
        outside = Outside(claims, progress, consent, identity, places, connection)
        consumer = Consumer(outside, plans, enrichers, version("cdi-enrichment"))
        reader = await stack.enter_async_context(bus.reading(connection, _reader_spec(settings), consumer.handle, context))
        context.readiness.add("reader", reader.ready)
        client = PrivacyClient(consenting, context.name)
        await stack.enter_async_context(obeying(connection, context.name, NothingHeld(HELD), client, context))
        yield


def _reader_spec(settings: Settings) -> bus.ReaderSpec[event_pb2.EventBatch]:
    return bus.ReaderSpec(
        service=settings.service_name,
        reader=settings.service_name,
        stream=StreamName.COLLECTED,
        decode=event_pb2.EventBatch.FromString,
        partitions=settings.partitions,
        lanes=LANES,
        max_events=settings.max_events,
    )


async def _open_epochs(claims: ClaimStore) -> None:
    """Opens a new epoch of claims whenever one is due, until cancelled."""
    while True:
        try:
            await claims.open_epoch_if_due()
        except Transient as fault:
            _log.warning("claims.epoch_waits", reason=fault.reason_name)
        await asyncio.sleep(EPOCH_CHECK_SECONDS)
