"""Rebuilding where several loaders have one warehouse open, none of which has loaded everything itself."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cdi_kernel.faults import Fault, Unavailable
from cdi_testing import builders, eventually
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.plans import Plans
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.rebuilding import Rebuilding
from cdi_warehouse_loader.bootstrap import SystemClock
from cdi_warehouse_loader.clients import NoPlans, NoPurposes
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, Load, Position, StreamPartition
from cdi_warehouse_loader.domain.rebuild import Part, rebuilds
from cdi_warehouse_loader.ports import Warehouse

from . import engines
from .engines import Place
from .test_archive import rebuild, rebuilt
from .test_rebuilding import Rejections, change, holds, rejections, side

__all__ = ["rejections"]


@pytest.fixture(params=["postgresql", "iceberg"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An engine that several processes may have open."""
    needs = request.getfixturevalue
    made = engines.iceberg(tmp_path) if request.param == "iceberg" else engines.postgresql(needs("postgres_server"), needs("database_url"))
    yield made
    made.close()


class Waiting:
    """``Pending`` of readers that have settled everything or nothing, and what another loader does at that very moment."""

    def __init__(self, other: Warehouse, flow: Mapping[StreamPartition, Position], *, past: bool = True) -> None:
        self._past = past
        self._load = Load("ENRICHED", 0, (), flow, {})
        self._other = other

    async def messages(self, stream: str, reader: str) -> int:
        return 0

    async def is_past(self, where: StreamPartition, reader: str, sequence: int) -> bool:
        with contextlib.suppress(Unavailable):  # it learns that positions are noted now; a reader tries again, too
            await asyncio.to_thread(self._other.load, self._load)
        await asyncio.to_thread(self._other.load, self._load)
        return self._past


def flow(number: int) -> dict[StreamPartition, Position]:
    return {
        StreamPartition("ENRICHED", 1): Position(number * 10, number),
        StreamPartition("IDENTITY", 0): Position(number + 1, 0),
        StreamPartition("REJECTED", 0): Position(number + 2, 0),
    }


async def opened(place: Place, *, archives: bool = False) -> Access:
    access = Access(place.open, lambda: None, (DEFAULT_TARGET,), archives=archives)
    await access.open()
    return access


async def test_a_loader_that_has_loaded_nothing_itself_finds_the_bounds(place: Place) -> None:
    """It was opened before another one loaded, and believes that nothing has been."""
    access, other = await opened(place, archives=True), place.open()
    await asyncio.to_thread(other.load, Load("ENRICHED", 0, (), flow(5), {}))
    assert not await access.write(lambda held: held.positions)
    connection = Connection("shared", place.options.kind, "warehouse-loader", access)
    rebuilding = Rebuilding(Connections([connection]), Waiting(other, {}), 2, SystemClock())
    begun = await rebuilding.start(builders.WORKSPACE, "main", "")
    assert (begun.bounds, begun.changes, begun.rejections) == ({1: 5}, Part(0, 6), Part(0, 7))
    await done(rebuilding, connection)
    access.close()


async def done(rebuilding: Rebuilding, connection: Connection) -> None:
    """Returns when the rebuilds of a connection are done."""

    async def over() -> bool:
        return all(one.done for one in await connection.access.write(lambda held: rebuilds(held.positions)))

    rules, plans = PurposeRules(NoPurposes(), connection.access), Plans(NoPlans(), connection.access)
    running = asyncio.ensure_future(rebuilding.run(connection, rules, plans))
    try:
        await eventually(over)
    finally:
        running.cancel()


async def test_an_archive_that_another_loader_fills_is_seen_to_be_far_enough(place: Place, tmp_path: Path) -> None:
    main = engines.duckdb(tmp_path)
    access, source, other = await opened(main), await opened(place, archives=True), place.open()
    await access.write(lambda held: held.load(Load("ENRICHED", 0, (), flow(5), {})))
    connections = [Connection("main", "duckdb", "main", access), Connection("shared", place.options.kind, "shared", source)]
    rebuilding = Rebuilding(Connections(connections), Waiting(other, {}), 2, SystemClock())
    await rebuilding.start(builders.WORKSPACE, "main", "")
    with contextlib.suppress(Unavailable):
        await asyncio.to_thread(other.load, Load("ENRICHED", 0, (), flow(5), {}))
    await asyncio.to_thread(other.load, Load("ENRICHED", 0, (), flow(5), {}))
    await done(rebuilding, connections[0])
    for each in (source, access):
        each.close()
    main.close()


async def test_what_another_loader_brings_while_a_rebuild_begins_is_within_its_bounds(place: Place, tmp_path: Path) -> None:
    lake = engines.duckdb(tmp_path)
    source, access, other = await opened(lake, archives=True), await opened(place), place.open()
    await source.write(lambda held: held.load(Load("ENRICHED", 0, (), flow(9), {})))
    connections = [Connection("lake", "duckdb", "lake", source), Connection("shared", place.options.kind, "shared", access)]
    document = Document(builders.WORKSPACE, "late", (), "late", 1)
    await access.write(lambda held: held.put_document(document))
    await access.refresh_targets()
    waiting = Rebuilding(Connections(connections), Waiting(other, {}, past=False), 2, SystemClock())
    with pytest.raises(Unavailable):  # its reader has not brought anything yet
        await waiting.start(builders.WORKSPACE, "late", "")
    begun = await Rebuilding(Connections(connections), Waiting(other, flow(5)), 2, SystemClock()).start(builders.WORKSPACE, "late", "")
    assert (begun.bounds, begun.changes, begun.rejections) == ({1: 5}, Part(0, 6), Part(0, 7))
    for each in (source, access):
        each.close()
    lake.close()


async def test_replicas_of_which_one_is_killed_rebuild_while_both_load(
    place: Place, start_loader: Any, enrichment: Any, graph: Any, rejections: Rejections, ask: Any
) -> None:
    """Neither has loaded everything itself, so what each believes of positions is out of date."""
    warehouses = json.dumps({"shared": place.options.url})
    environment = {"CDI_DUCKDB_PATH": "", "CDI_WAREHOUSES": warehouses, "CDI_ARCHIVE": "shared", "CDI_PARTITIONS": "4"}
    loaders = [start_loader(name, **environment) for name in ("first", "second")]
    sent = 0

    async def publish(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):
            await enrichment.publish([builders.track(message_id=f"m{sent}")], partition=sent % 4)
            await graph.change(change(sent))
            await rejections.publish(f"r{sent}")
            sent += 1

    async def are_loaded(client: Any) -> bool:
        try:
            events = await client.value("select count(*) from main.tracks")
        except Fault:
            return False
        return bool(events == sent and await holds(client, (sent, 2 * sent, 2 * sent, sent)))

    clients = [await ask(loader) for loader in loaders]
    await publish(30)
    await eventually(lambda: are_loaded(clients[0]), within=60)
    await publish(10)
    await rebuild(clients[1])
    await publish(10)
    loaders[0].kill()
    await publish(10)
    loaders[0].start()
    await rebuilt(clients[1])
    await eventually(lambda: are_loaded(clients[1]), within=90)
    before = await side(clients[1])
    assert before == await side(clients[1], "cdi_archive")
    assert await clients[1].value("select count(distinct id) from main.tracks") == sent
    assert await clients[1].value("select count(distinct rejection_id) from main.rejected_events") == sent
    await rebuild(clients[1])
    await rebuilt(clients[1], 2)
    assert await side(clients[1]) == before
    assert await are_loaded(clients[1])
