"""The composition root: resources in start order, released in reverse. Doors open last and close first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from cdi.collector.v1 import collector_service_pb2, collector_service_pb2_grpc
from cdi_collector.admission import Budget, Pace
from cdi_collector.application import Collector, Sources
from cdi_collector.domain.rate_limit import RateLimit
from cdi_collector.http.app import HttpApp
from cdi_collector.http.registry import installed
from cdi_collector.http.server import serve_http
from cdi_collector.publisher import GroupCommit, Outlet
from cdi_collector.servicer import CollectorServicer, SourcesServicer
from cdi_collector.settings import Settings
from cdi_collector.spool.bus import SpoolingBus
from cdi_collector.spool.log import spooled
from cdi_collector.store import PostgresSources, SourceDirectory
from cdi_collector.tracing import Sampler
from cdi_privacy import NothingHeld, PrivacyClient, obeying
from cdi_runtime import bus, rpc
from cdi_runtime.service import ServiceContext
from cdi_runtime.store import Database

HELD: Final = {"spool": "events on the way to JetStream; those of erased people end in enrichment", "sources": "nothing of a person"}
"""What privacy orders find here."""


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Runs the collector while the block runs."""
    assert settings.database_url is not None
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(settings.database_url.get_secret_value()))
        store = PostgresSources(database)
        directory = SourceDirectory(store, settings.sources_refresh_seconds)
        await directory.refresh()
        await stack.enter_async_context(context.background(directory.run(), "sources"))
        context.readiness.add("sources", directory.ready)
        outlet, connected = await stack.enter_async_context(_outlet(settings, context))
        if settings.consent_target:
            client = PrivacyClient(await stack.enter_async_context(rpc.channel(settings.consent_target)), context.name)
            await stack.enter_async_context(context.background(_obey(context, connected, client), "privacy"))
        context.readiness.add("nats", outlet.ready)
        commit = GroupCommit(outlet, settings.linger_milliseconds / 1_000)
        stack.push_async_callback(commit.drain)
        pace = Pace(_default_rate(settings))
        collector = Collector(directory, commit, commit, Sampler(settings.trace_sample_ratio), settings.partitions, pace)
        await stack.enter_async_context(context.background(collector.tally.run(), "tally"))
        budget = Budget(settings.max_in_flight_bytes, settings.max_requests)
        await stack.enter_async_context(
            rpc.serve(context, settings.grpc_address, *_registrations(settings, collector, budget, Sources(store, directory)))
        )
        app = HttpApp(collector, budget, installed(settings), body_seconds=settings.body_seconds, proxy_hops=settings.trusted_proxy_hops)
        await stack.enter_async_context(serve_http(context, settings, app))
        yield


@asynccontextmanager
async def _outlet(settings: Settings, context: ServiceContext) -> AsyncIterator[tuple[Outlet, asyncio.Future[bus.Bus]]]:
    """JetStream, waiting until it is there; or with a spool in front, which does not wait. And the connection, once there is one."""
    connected: asyncio.Future[bus.Bus] = asyncio.get_running_loop().create_future()
    if settings.spool_directory is None:
        async with bus.connect(settings.nats_url, context.name) as connection:
            connected.set_result(connection)
            yield connection, connected
        return

    async with (
        spooled(settings.spool_directory, settings.spool_max_bytes, settings.spool_segment_bytes) as spool,
        bus.dial(settings.nats_url, context.name) as (dialled, opening),
        context.background(_open(opening, dialled, connected), "nats"),
        context.background(spool.report(), "spool-metrics"),
    ):
        outlet = SpoolingBus(dialled, spool)
        async with context.background(outlet.run(), "spool"):
            yield outlet, connected


async def _open(opening: Callable[[], Awaitable[None]], dialled: bus.Bus, connected: asyncio.Future[bus.Bus]) -> None:
    await opening()
    connected.set_result(dialled)


async def _obey(context: ServiceContext, connected: asyncio.Future[bus.Bus], client: PrivacyClient) -> None:
    """Reports on privacy orders from when NATS is there, until cancelled. The doors wait for none of it."""
    async with obeying(await asyncio.shield(connected), context.name, NothingHeld(HELD), client, context):
        await asyncio.Event().wait()


def _default_rate(settings: Settings) -> RateLimit | None:
    rate = settings.rate_limit_events_per_second
    return RateLimit(rate, settings.rate_limit_burst) if rate else None


def _registrations(settings: Settings, collector: Collector, budget: Budget, sources: Sources) -> list[rpc.Registration]:
    services = collector_service_pb2.DESCRIPTOR.services_by_name
    taking = CollectorServicer(collector, budget)
    return [
        rpc.Registration(taking.add_to_server, taking, services["CollectorService"].full_name),
        rpc.Registration(
            collector_service_pb2_grpc.add_SourcesServiceServicer_to_server,
            SourcesServicer(sources),
            services["SourcesService"].full_name,
            rpc.TokenGuard(settings.admin_token_hashes),
        ),
    ]
