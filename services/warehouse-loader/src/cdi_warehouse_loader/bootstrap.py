"""The parts of the loader, in start order; released in reverse."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import quote

import pyarrow

from cdi.warehouse.v1 import (
    clean_room_service_pb2,
    clean_room_service_pb2_grpc,
    warehouse_service_pb2,
    warehouse_service_pb2_grpc,
)
from cdi_privacy import PrivacyClient, obeying
from cdi_runtime.bus import Bus, connect, reading
from cdi_runtime.rpc import Registration, TokenGuard, channel, serve
from cdi_runtime.service import ServiceContext
from cdi_warehouse_loader import consumer
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.clean_rooms import CleanRooms
from cdi_warehouse_loader.application.loading import Loading
from cdi_warehouse_loader.application.privacy import Privacy
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.serving import Serving
from cdi_warehouse_loader.clients import ConsentPurposes, NoPurposes
from cdi_warehouse_loader.noise import OpenDpNoise
from cdi_warehouse_loader.servicer.clean_rooms import CleanRoomServicer
from cdi_warehouse_loader.servicer.warehouses import WarehouseServicer
from cdi_warehouse_loader.settings import Settings
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options

_GC_THRESHOLDS = (50_000, 20, 50)
"""A load makes some hundred thousand objects and frees them all: searching them for cycles at Python's usual pace costs a fifth of it."""


class SystemClock:
    """The clock of the machine."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1_000


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Starts the loader. gRPC serves at once; loading begins when this process holds the warehouse."""
    gc.set_threshold(*_GC_THRESHOLDS)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the default pool keeps what it once had
    options = Options(
        f"duckdb:{quote(str(settings.duckdb_path))}",
        memory_limit=settings.duckdb_memory_limit,
        threads=settings.duckdb_threads,
        checkpoint_threshold=settings.checkpoint_threshold,
    )
    async with AsyncExitStack() as stack:
        engine = REGISTRY["duckdb"]
        access = Access(partial(engine.open, options), partial(engine.rewrite, options))
        stack.callback(access.close)
        context.readiness.add("warehouse", access.ready)
        bus = await stack.enter_async_context(connect(settings.nats_url, context.name))
        context.readiness.add("nats", bus.ready)
        rules = PurposeRules(NoPurposes(), access)
        if settings.consent_target:
            consent = await stack.enter_async_context(channel(settings.consent_target))
            rules = PurposeRules(ConsentPurposes(consent), access)
            await stack.enter_async_context(context.background(rules.follow(), "purposes"))
            client = PrivacyClient(consent, context.name)
            privacy = Privacy(access, SystemClock(), settings.rewrite_after_seconds)
            await stack.enter_async_context(context.background(_obey(context, access, bus, privacy, client), "privacy"))
        await stack.enter_async_context(context.background(_load(settings, context, access, rules, bus), "loading"))
        guard = TokenGuard(settings.admin_token_hashes)
        warehouses, rooms = _warehouses(settings, access, guard), _clean_rooms(settings, access, guard)
        await stack.enter_async_context(serve(context, settings.grpc_address, warehouses, rooms))
        if settings.partner_address:
            await stack.enter_async_context(serve(context, settings.partner_address, rooms, announced="partners"))
        yield


def _warehouses(settings: Settings, access: Access, guard: TokenGuard) -> Registration:
    name = warehouse_service_pb2.DESCRIPTOR.services_by_name["WarehouseService"].full_name
    servicer = WarehouseServicer(Serving(access, settings.query_seconds))
    return Registration(warehouse_service_pb2_grpc.add_WarehouseServiceServicer_to_server, servicer, name, guard)


def _clean_rooms(settings: Settings, access: Access, guard: TokenGuard) -> Registration:
    """Partners have tokens of their own, so the servicer looks at each call itself."""
    name = clean_room_service_pb2.DESCRIPTOR.services_by_name["CleanRoomService"].full_name
    rooms = CleanRooms(access, OpenDpNoise(), SystemClock(), settings.query_seconds)
    servicer = CleanRoomServicer(rooms, guard)
    return Registration(clean_room_service_pb2_grpc.add_CleanRoomServiceServicer_to_server, servicer, name)


async def _load(settings: Settings, context: ServiceContext, access: Access, rules: PurposeRules, bus: Bus) -> None:
    """Waits for the warehouse, then loads until cancelled; leaving drains the readers."""
    await access.open()
    handlers = consumer.Consumer(Loading(access, rules, SystemClock()))
    linger = settings.load_linger_seconds
    events = consumer.events_spec(context.name, settings.partitions, settings.load_max_events, linger)
    async with (
        reading(bus, events, handlers.events, context) as reader,
        reading(bus, consumer.rejected_spec(context.name, linger), handlers.rejected, context) as rejected,
        reading(bus, consumer.identity_spec(context.name, linger), handlers.identity, context) as identity,
    ):
        context.readiness.add("enriched", reader.ready)
        context.readiness.add("rejected", rejected.ready)
        context.readiness.add("identity", identity.ready)
        await access.watch()


async def _obey(context: ServiceContext, access: Access, bus: Bus, privacy: Privacy, client: PrivacyClient) -> None:
    """Obeys privacy orders from when the warehouse is held, until cancelled."""
    await access.held()
    async with obeying(bus, context.name, privacy, client, context) as reader:
        context.readiness.add("privacy", reader.ready)
        await privacy.keep_rewriting()
