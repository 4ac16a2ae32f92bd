"""What the bus and the services say, read in an order that never makes an event look counted twice: sinks first, COLLECTED last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final

from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.event.v1 import outcome_pb2
from cdi.router.v1 import router_service_pb2
from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.audit.sums import ENRICHMENT, REJECTED, Count, Lost, Reading
from cdi_cli.peers import Peers, ask
from cdi_cli.streams import dead_letters, events_before, state_of
from cdi_kernel.envelope import EVENTS
from cdi_kernel.topology import StreamName, destination_reader, durable, enriched
from cdi_runtime.bus import Bus

LOADER_READER: Final = "warehouse-loader"
STEADY_SECONDS: Final = 0.3
"""Between two readings that must agree."""


async def settled_reading(bus: Bus, peers: Peers, workspace: str, partitions: int, *, within: float, parked: bool) -> Reading:
    """The first reading in which nothing is on its way and nothing has changed since the one before; else the last one.

    Args:
        bus: the bus.
        peers: the services.
        workspace: whose destinations and warehouses.
        partitions: of the installation.
        within: seconds.
        parked: wait also until no delivery is parked.
    """
    deadline = time.monotonic() + within
    before = await take_reading(bus, peers, workspace, partitions)
    while time.monotonic() < deadline:
        await asyncio.sleep(STEADY_SECONDS)
        reading = await take_reading(bus, peers, workspace, partitions)
        waits = any(reading.waiting.values()) or (parked and any(count.outcome == "parked" and count.events for count in reading.counts))
        if reading == before and not waits:
            return reading
        before = reading
    return before


async def take_reading(bus: Bus, peers: Peers, workspace: str, partitions: int) -> Reading:
    """One reading. The counts are of the whole installation, so the account is right while one workspace alone has sinks."""
    readers = await _readers(peers, workspace)
    waiting = {sink: await _lag(bus, StreamName.ENRICHED, reader, partitions) for sink, reader in readers.items()}
    waiting[ENRICHMENT] = await _lag(bus, StreamName.COLLECTED, ENRICHMENT, partitions)
    waiting[REJECTED] = sum((await state_of(bus, StreamName.REJECTED)).lag.values())
    counts = [*await _sink_counts(peers), *await _enrichment_counts(peers)]
    earlier = await _earlier(bus, readers, partitions)
    lost = await _lost(bus, readers)
    rejected, all_rejected = await _events(bus, StreamName.REJECTED)
    collected, all_collected = await _events(bus, StreamName.COLLECTED)
    if not (all_rejected and all_collected):
        collected = sum(count.events for count in counts if (count.sink, count.outcome) == (ENRICHMENT, "accepted"))
        rejected = sum(count.events for count in counts if count.sink == REJECTED)
    return Reading(
        collected=collected,
        rejected=rejected,
        waiting=waiting,
        counts=tuple(sorted(counts, key=lambda count: (count.sink, count.outcome, count.reason))),
        lost=tuple(lost),
        sinks=tuple(sorted(readers)),
        earlier=earlier,
        streams_whole=all_rejected and all_collected,
    )


async def _events(bus: Bus, stream: StreamName) -> tuple[int, bool]:
    """Events in a stream, and whether these are all that there ever were."""
    counts = await bus.count_events(stream)
    return sum(count.events for count in counts.values()), (await state_of(bus, stream)).first <= 1


async def _readers(peers: Peers, workspace: str) -> dict[str, str]:
    """Sink → its reader of ENRICHED."""
    destinations = await ask(
        (await peers.router()).ListDestinations, router_service_pb2.ListDestinationsRequest(workspace_id=workspace, page_size=1_000)
    )
    warehouses = await ask(
        (await peers.warehouse()).ListWarehouses, warehouse_service_pb2.ListWarehousesRequest(workspace_id=workspace, page_size=1_000)
    )
    readers = {f"destination:{each.name}": destination_reader(workspace, each.name) for each in destinations.destinations}
    return readers | {f"warehouse:{each.name}": LOADER_READER for each in warehouses.warehouses}


async def _lag(bus: Bus, stream: StreamName, reader: str, partitions: int) -> int:
    return sum([await bus.lag(stream, reader, partition) for partition in range(partitions)])


async def _earlier(bus: Bus, readers: Mapping[str, str], partitions: int) -> dict[str, int]:
    """Sink → events that were enriched before it existed."""
    began = (await state_of(bus, StreamName.ENRICHED)).began
    earlier: dict[str, int] = {}
    for sink, reader in readers.items():
        starts = {enriched(each): began[durable(reader, each)] for each in range(partitions) if durable(reader, each) in began}
        earlier[sink] = await events_before(bus, StreamName.ENRICHED, starts) if starts else 0
    return earlier


async def _sink_counts(peers: Peers) -> list[Count]:
    router = await ask((await peers.router()).CountOutcomes, router_service_pb2.CountOutcomesRequest())
    loader = await ask((await peers.warehouse()).CountOutcomes, warehouse_service_pb2.CountOutcomesRequest())
    return [*_counts(router.counts), *_counts(loader.counts)]


async def _enrichment_counts(peers: Peers) -> list[Count]:
    answer = await ask((await peers.enrichment()).CountOutcomes, enrichment_service_pb2.CountOutcomesRequest())
    return _counts(answer.counts)


def _counts(counts: Iterable[outcome_pb2.OutcomeCount]) -> list[Count]:
    return [Count(each.sink, outcome_name(each.outcome), each.events, each.reason) for each in counts]


def outcome_name(outcome: outcome_pb2.Outcome.ValueType) -> str:
    """``OUTCOME_DEAD_LETTERED`` → ``dead_lettered``."""
    return outcome_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()


async def _lost(bus: Bus, readers: Mapping[str, str]) -> list[Lost]:
    """The events inside the bus messages that were given up."""
    lost: list[Lost] = []
    for letter in await dead_letters(bus):
        events = int(letter.headers.get(EVENTS, "1"))
        reader = letter.dead_letter_id.removesuffix(f"-{letter.stream}-{letter.sequence}")
        if letter.stream == StreamName.COLLECTED:
            lost.append(Lost(ENRICHMENT, events))
        elif letter.stream == StreamName.REJECTED:
            lost.append(Lost(REJECTED, events))
        elif letter.stream == StreamName.ENRICHED:
            lost += [Lost(sink, events) for sink, name in readers.items() if name == reader]
    return lost
