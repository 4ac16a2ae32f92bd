"""Several warehouses of one loader: positions and pace of their own, documents, orders, streamed answers, status."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_kernel.faults import FailedPrecondition, InvalidArgument, NotFound, TooLarge, Unavailable
from cdi_runtime import rpc
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell

SERVICE = "warehouse-loader"


@pytest.fixture
async def side() -> AsyncIterator[tuple[PrivacySide, str]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(privacy_side((add_ConsentServiceServicer_to_server, Consents())))


def second(tmp_path: Path) -> str:
    """The setting of a loader with a second warehouse."""
    return json.dumps({"second": f"duckdb:{tmp_path}/second.duckdb"})


async def apply(client: Any, name: str, **fields: Any) -> pb.ApplyWarehouseResponse:
    warehouse = pb.Warehouse(workspace_id=builders.WORKSPACE, name=name, **fields)
    return await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=warehouse), timeout=20.0)


async def apply_once_up(client: Any, name: str, **fields: Any) -> None:
    async def applied() -> bool:
        try:
            await apply(client, name, **fields)
        except Unavailable:
            return False
        return True

    await eventually(applied)


async def ids(client: Any, connection: str, table: str = "main.tracks") -> list[str]:
    request = pb.QueryRowsRequest(sql=f"select id from {table} order by id", connection=connection)
    answer = await rpc.call(client.stub.QueryRows, request, timeout=20.0)
    return [row[0] for row in answer.rows]


async def loaded(client: Any, connection: str, expected: list[str]) -> None:
    await eventually(lambda: _has(client, connection, "main.tracks", expected))


async def status(client: Any) -> dict[str, pb.ConnectionStatus]:
    answer = await rpc.call(client.stub.GetStatus, pb.GetStatusRequest(), timeout=20.0)
    return {one.connection: one for one in answer.connections}


async def streamed(client: Any, sql: str, **fields: Any) -> tuple[Any, bool]:
    """The whole answer as an Arrow table, and whether there were more rows."""
    parts = [part async for part in rpc.stream(client.stub.Query, pb.QueryRequest(sql=sql, **fields), timeout=30.0)]
    with pa.ipc.open_stream(b"".join(part.ipc for part in parts)) as reader:
        return reader.read_all(), parts[-1].truncated


async def test_a_document_brings_events_into_its_connection_and_no_other(
    start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path
) -> None:
    client = await ask(start_loader(CDI_WAREHOUSES=second(tmp_path)))
    await apply_once_up(client, "analytics", connection="second", schema="acme")
    await enrichment.publish([builders.track("Seen", message_id="m1"), builders.track("Seen", message_id="m2", workspace_id="elsewhere")])
    await eventually(lambda: _has(client, "second", "acme.seen", ["m1"]))
    await loaded(client, "", ["m1", "m2"])
    with pytest.raises(InvalidArgument):
        await ids(client, "second", "main.seen")
    assert await client.counts() == {("warehouse:main", "loaded"): 2, ("warehouse:analytics", "loaded"): 1}
    assert (await apply(client, "analytics", connection="second", schema="acme")).changed is False
    with pytest.raises(FailedPrecondition):
        await apply(client, "analytics", schema="acme")
    with pytest.raises(NotFound):
        await apply(client, "other", connection="third")
    listed = await rpc.call(client.stub.ListWarehouses, pb.ListWarehousesRequest(workspace_id=builders.WORKSPACE), timeout=20.0)
    assert [(one.name, one.connection, one.schema) for one in listed.warehouses] == [("analytics", "second", "acme")]
    changes = pb.ListSchemaChangesRequest(workspace_id=builders.WORKSPACE, warehouse="analytics", table="seen")
    history = await rpc.call(client.stub.ListSchemaChanges, changes, timeout=20.0)
    assert [(one.table, one.column, one.change) for one in history.changes] == [("seen", "", "table_added")]


async def _has(client: Any, connection: str, table: str, expected: list[str]) -> bool:
    try:
        return await ids(client, connection, table) == expected
    except (InvalidArgument, Unavailable):  # no table yet, or the loader has just been started
        return False


async def test_a_connection_that_is_down_holds_no_other_and_catches_up(
    start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path
) -> None:
    client = await ask(start_loader(CDI_WAREHOUSES=second(tmp_path)))
    await apply_once_up(client, "analytics", connection="second", schema="main")
    await enrichment.publish([builders.track(message_id="m1")])
    await loaded(client, "second", ["m1"])
    loader = start_loader.started[0]
    loader.stop()
    with duckdb.connect(str(tmp_path / "second.duckdb")):  # as another process does
        loader.start()
        await enrichment.publish([builders.track(message_id="m2")])
        await loaded(client, "", ["m1", "m2"])
        found = await status(client)
        assert (found["main"].down, found["main"].kind) == ("", "duckdb")
        assert "another process" in found["second"].down
        assert {one.stream: one.pending for one in found["second"].streams}["ENRICHED"] == 1
        with pytest.raises(Unavailable):
            await ids(client, "second")
        with pytest.raises(Unavailable):
            await client.counts()
    await eventually(lambda: _up(client, "second"))
    await loaded(client, "second", ["m1", "m2"])
    found = await status(client)
    assert (found["second"].loads[0].stream, found["second"].loads[0].events) == ("ENRICHED", 1)
    assert found["second"].loads[0].bytes > 0


async def _up(client: Any, connection: str) -> bool:
    return not (await status(client))[connection].down


async def test_an_order_is_done_when_it_is_done_in_every_warehouse_and_a_new_one_learns_of_it(
    start_loader: Any, enrichment: Any, ask: Any, bus: Bus, side: tuple[PrivacySide, str], tmp_path: Path
) -> None:
    consent, address = side
    both = second(tmp_path)
    client = await ask(start_loader(CDI_CONSENT_TARGET=address, CDI_WAREHOUSES=both))
    await apply_once_up(client, "analytics", connection="second", schema="main")
    await enrichment.publish([builders.track(message_id="hers", user_id="eve"), builders.track(message_id="his", user_id="adam")])
    await loaded(client, "", ["hers", "his"])
    await loaded(client, "second", ["hers", "his"])
    asked = order(SERVICE, ("user_id", "eve"))
    await tell(bus, asked)
    steps = await consent.reported(asked, SERVICE)
    assert (steps["warehouse:main.tracks"].count, steps["warehouse:second/main.tracks"].count) == (1, 1)
    assert (await ids(client, ""), await ids(client, "second")) == (["his"], ["his"])
    start_loader.started[0].stop()
    three = json.dumps({**json.loads(both), "third": f"duckdb:{tmp_path}/third.duckdb"})
    again = await ask(start_loader(name="again", CDI_CONSENT_TARGET=address, CDI_WAREHOUSES=three))
    await apply_once_up(again, "archive", connection="third", schema="main")
    await enrichment.publish([builders.track(message_id="later", user_id="adam")])
    await loaded(again, "second", ["his", "later"])
    await eventually(lambda: _up(again, "third"))
    request = pb.QueryRowsRequest(sql="select count(*) from _cdi.tombstones", connection="third")
    assert [list(row) for row in (await rpc.call(again.stub.QueryRows, request, timeout=20.0)).rows] == [[1]]


async def test_answers_are_streamed_as_arrow_whatever_their_size(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await enrichment.publish([builders.track("Seen", message_id=f"m{number}", properties={"n": number}) for number in range(3)])
    await client.loaded(3)
    table, truncated = await streamed(client, "select id, n from seen order by n")
    assert (table.to_pydict(), truncated) == ({"id": ["m0", "m1", "m2"], "n": [0, 1, 2]}, False)
    table, truncated = await streamed(client, "select n from seen order by n", max_rows=2)
    assert (table.to_pydict(), truncated) == ({"n": [0, 1]}, True)
    table, truncated = await streamed(client, "select n from seen where n < 0")
    assert (table.num_rows, table.schema.names, truncated) == (0, ["n"], False)
    table, _ = await streamed(client, "select i, repeat('x', 100) as t from range(200000) r(i)")
    assert (table.num_rows, table["i"][199_999].as_py()) == (200_000, 199_999)
    with pytest.raises(TooLarge):
        await streamed(client, "select repeat('x', 1000) as t from range(900000)")
    with pytest.raises(InvalidArgument):
        await streamed(client, "drop table seen")
    assert await client.value("select count(*) from seen") == 3


async def test_a_client_that_goes_away_in_the_middle_of_an_answer_holds_nobody_up(start_loader: Any, ask: Any) -> None:
    client = await ask(start_loader())
    call = client.stub.Query(pb.QueryRequest(sql="select i, repeat('x', 100) as t from range(900000) r(i)"), timeout=30.0)
    async for _ in call:
        break
    call.cancel()
    async with asyncio.timeout(20):
        assert await client.value("select 1") == 1


async def test_a_question_with_purposes_sees_only_their_events(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    agreed, other = builders.track(message_id="agreed"), builders.track(message_id="other")
    agreed.consent.granted_purposes.append("research")
    await enrichment.publish([agreed, other])
    await client.loaded(2)
    table, _ = await streamed(client, "select id from tracks", purposes=["research"])
    assert table.to_pydict() == {"id": ["agreed"]}
    with pytest.raises(InvalidArgument):
        await streamed(client, "select id from users", purposes=["research"])
    with pytest.raises(InvalidArgument):
        await streamed(client, "select id from warehouse.main.tracks", purposes=["research"])
    with pytest.raises(InvalidArgument):
        await streamed(client, "select * from query_table('warehouse.main.tracks')", purposes=["research"])


async def test_a_document_that_one_replica_takes_counts_for_the_others_too(
    database_url: str, start_loader: Any, enrichment: Any, ask: Any
) -> None:
    settings = {"CDI_DUCKDB_PATH": "", "CDI_WAREHOUSES": json.dumps({"main": database_url})}
    one, other = [await ask(start_loader(name=name, **settings)) for name in ("one", "other")]
    turns = 0

    async def publish() -> None:
        nonlocal turns
        turns += 1
        for partition in range(8):
            await enrichment.publish([builders.track(message_id=f"m{turns}-{partition}")], partition=partition)
        await loaded_in_all(other, turns * 8)

    await publish()  # both know the workspace now, and that it has no document
    await apply(one, "late", schema="late")

    async def in_every_partition() -> bool:
        await publish()
        return len([name for name in await ids(other, "", "late.tracks") if name.startswith(f"m{turns}-")]) == 8

    await eventually(in_every_partition)
    assert turns < 30


async def loaded_in_all(client: Any, events: int) -> None:
    """Waits until each event is loaded or has gone to no other warehouse than the first."""

    async def there() -> bool:
        counts = await client.counts()
        return sum(number for (_, reason), number in counts.items() if reason == "loaded") >= events

    await eventually(there)
