"""The parts of the loader, in start order; released in reverse."""

from __future__ import annotations

import asyncio
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
from cdi_kernel.faults import NotFound, Transient
from cdi_kernel.topology import StreamName
from cdi_privacy import PrivacyClient, obeying
from cdi_runtime.bus import Bus, connect, reading
from cdi_runtime.rpc import Registration, TokenGuard, channel, serve
from cdi_runtime.service import ServiceContext
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader import consumer
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.clean_rooms import CleanRooms
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.erasures import learn_erasures
from cdi_warehouse_loader.application.loading import Loading
from cdi_warehouse_loader.application.plans import Plans
from cdi_warehouse_loader.application.privacy import Privacy, keep_rewriting
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.rebuilding import Rebuilding
from cdi_warehouse_loader.application.serving import Serving
from cdi_warehouse_loader.clients import ConsentPurposes, EnrichmentPlans, NoPlans, NoPurposes
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, StreamPartition
from cdi_warehouse_loader.domain.load_size import ENOUGH_EVENTS, LoadSize
from cdi_warehouse_loader.noise import OpenDpNoise
from cdi_warehouse_loader.servicer.clean_rooms import CleanRoomServicer
from cdi_warehouse_loader.servicer.warehouses import WarehouseServicer
from cdi_warehouse_loader.settings import MAIN, Settings
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options

_RETRY_SECONDS = 1.0
_log = logger(__name__)


class SystemClock:
    """The clock of the machine."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1_000


class ReaderLag:
    """``Pending`` of the bus.

    Args:
        bus: the connection.
        partitions: of the installation.
    """

    def __init__(self, bus: Bus, partitions: int) -> None:
        self._bus = bus
        self._partitions = partitions

    async def messages(self, stream: str, reader: str) -> int:
        """See ``Pending``."""
        name = StreamName(stream)
        partitions = self._partitions if name is StreamName.ENRICHED else 1
        return sum([await self._bus.lag(name, reader, partition) for partition in range(partitions)])

    async def is_past(self, where: StreamPartition, reader: str, sequence: int) -> bool:
        """See ``Pending``. A reader that is not there yet has everything before it."""
        try:
            return await self._bus.settled(StreamName(where.stream), reader, where.partition, sequence)
        except NotFound:
            return False


@asynccontextmanager
async def bootstrap(settings: Settings, context: ServiceContext) -> AsyncIterator[None]:
    """Starts the loader. gRPC serves at once; loading begins when this process holds a warehouse, in each by itself."""
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the default pool keeps what it once had
    async with AsyncExitStack() as stack:
        connections = _connections(settings, context.name)
        for connection in connections:
            stack.callback(connection.access.close)
        context.readiness.add("warehouse", connections.first.access.ready)
        bus = await stack.enter_async_context(connect(settings.nats_url, context.name))
        context.readiness.add("nats", bus.ready)
        consent = None
        if settings.consent_target:
            consent = await stack.enter_async_context(channel(settings.consent_target))
            keeper, client = Privacy(connections, SystemClock()), PrivacyClient(consent, context.name)
            await stack.enter_async_context(context.background(_obey(context, connections, bus, keeper, client), "privacy"))
        enrichment = await stack.enter_async_context(channel(settings.enrichment_target)) if settings.enrichment_target else None
        rebuilding = Rebuilding(connections, ReaderLag(bus, settings.partitions), settings.partitions, SystemClock())
        for connection in connections:
            access = connection.access
            rules = PurposeRules(ConsentPurposes(consent) if consent else NoPurposes(), access)
            plans = Plans(EnrichmentPlans(enrichment) if enrichment else NoPlans(), access)
            size = LoadSize(settings.load_max_events or REGISTRY[connection.kind].load_events)
            loading = Loading(access, rules, plans, SystemClock(), size)
            works = {
                "loading": _load(settings, context, connection, loading, size, bus),
                "rewriting": _rewrite(access, settings.rewrite_after_seconds),
                "rebuilding": rebuilding.run(connection, rules, plans),
                "documents": access.follow_documents(),
                "purposes": rules.follow(),
                "plans": plans.follow(),
            }
            for name, work in works.items():
                await stack.enter_async_context(context.background(work, f"{name} {connection.name}"))
        await _serve(settings, context, connections, rebuilding, bus, stack)
        yield


def _connections(settings: Settings, service: str) -> Connections:
    """The connections of the settings, none of them open yet. The first one's readers have the service's name."""
    urls = {MAIN: f"duckdb:{quote(settings.duckdb_path)}"} if settings.duckdb_path else {}
    urls |= {name: url.get_secret_value() for name, url in settings.warehouses.items()}
    made: list[Connection] = []
    for name, url in urls.items():
        options = Options(
            url,
            memory_limit=settings.duckdb_memory_limit,
            threads=settings.duckdb_threads,
            checkpoint_threshold=settings.checkpoint_threshold,
        )
        engine = REGISTRY[options.kind]
        is_first = not made
        others = (DEFAULT_TARGET,) if is_first else ()
        access = Access(partial(engine.open, options), partial(engine.rewrite, options), others, archives=name == settings.archive)
        made.append(Connection(name, options.kind, service if is_first else f"{service}-{name}", access))
    return Connections(made)


async def _serve(
    settings: Settings, context: ServiceContext, connections: Connections, rebuilding: Rebuilding, bus: Bus, stack: AsyncExitStack
) -> None:
    guard = TokenGuard(settings.admin_token_hashes)
    lag = ReaderLag(bus, settings.partitions)
    warehouses = _warehouses(Serving(connections, lag, settings.query_seconds), rebuilding, guard)
    rooms = _clean_rooms(settings, connections.first.access, guard)
    await stack.enter_async_context(serve(context, settings.grpc_address, warehouses, rooms))
    if settings.partner_address:
        await stack.enter_async_context(serve(context, settings.partner_address, rooms, announced="partners"))


def _warehouses(serving: Serving, rebuilding: Rebuilding, guard: TokenGuard) -> Registration:
    name = warehouse_service_pb2.DESCRIPTOR.services_by_name["WarehouseService"].full_name
    servicer = WarehouseServicer(serving, rebuilding)
    return Registration(warehouse_service_pb2_grpc.add_WarehouseServiceServicer_to_server, servicer, name, guard)


def _clean_rooms(settings: Settings, access: Access, guard: TokenGuard) -> Registration:
    """Partners have tokens of their own, so the servicer looks at each call itself."""
    name = clean_room_service_pb2.DESCRIPTOR.services_by_name["CleanRoomService"].full_name
    rooms = CleanRooms(access, OpenDpNoise(), SystemClock(), settings.query_seconds)
    servicer = CleanRoomServicer(rooms, guard)
    return Registration(clean_room_service_pb2_grpc.add_CleanRoomServiceServicer_to_server, servicer, name)


async def _load(settings: Settings, context: ServiceContext, connection: Connection, loading: Loading, size: LoadSize, bus: Bus) -> None:
    """Waits for the warehouse, then loads until cancelled; leaving drains the readers."""
    access, reader = connection.access, connection.reader
    is_first = reader == context.name
    await access.open()
    await _learn_erasures(access, bus)
    handlers = consumer.Consumer(loading)
    linger = settings.load_linger_seconds
    enough = settings.load_max_events or ENOUGH_EVENTS
    events = consumer.events_spec(context.name, reader, settings.partitions, enough, size, linger)
    async with (
        reading(bus, events, handlers.events, context) as enriched,
        reading(bus, consumer.rejected_spec(context.name, reader, linger), handlers.rejected, context) as rejected,
        reading(bus, consumer.identity_spec(context.name, reader, linger), handlers.identity, context) as identity,
    ):
        if is_first:  # the others are up or down by themselves, and GetStatus says so
            for name, ready in (("enriched", enriched.ready), ("rejected", rejected.ready), ("identity", identity.ready)):
                context.readiness.add(name, ready)
        await access.watch()


async def _learn_erasures(access: Access, bus: Bus) -> None:
    while True:
        try:
            return await learn_erasures(access, bus.stored(StreamName.PRIVACY), SystemClock())
        except Transient as fault:
            _log.warning("warehouse.waits_for_erasures", reason=fault.reason_name)
            await asyncio.sleep(_RETRY_SECONDS)


async def _rewrite(access: Access, after_seconds: float) -> None:
    await access.held()
    await keep_rewriting(access, SystemClock(), after_seconds)


async def _obey(context: ServiceContext, connections: Connections, bus: Bus, privacy: Privacy, client: PrivacyClient) -> None:
    """Obeys privacy orders from when the first warehouse is held, until cancelled."""
    await connections.first.access.held()
    async with obeying(bus, context.name, privacy, client, context) as reader:
        context.readiness.add("privacy", reader.ready)
        await asyncio.Event().wait()
