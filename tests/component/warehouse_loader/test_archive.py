"""The archive, and warehouses that are filled anew from it: while events arrive, over kill -9, without who was erased."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, Unavailable
from cdi_runtime import rpc
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell

from .test_connections import SERVICE, apply_once_up, ids, loaded, second, status

WORKSPACE = builders.WORKSPACE


@pytest.fixture
async def side() -> AsyncIterator[tuple[PrivacySide, str]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(privacy_side((add_ConsentServiceServicer_to_server, Consents())))


def settings(tmp_path: Path) -> dict[str, str]:
    return {"CDI_WAREHOUSES": second(tmp_path), "CDI_ARCHIVE": "second"}


async def rebuild(client: Any, warehouse: str = "main", table: str = "") -> pb.Rebuild:
    """Asks until the archive is open and the readers are there."""
    request = pb.RebuildWarehouseRequest(workspace_id=WORKSPACE, warehouse=warehouse, table=table)

    async def begun() -> pb.Rebuild | None:
        try:
            return (await rpc.call(client.stub.RebuildWarehouse, request, timeout=20.0)).rebuild
        except Unavailable:
            return None

    return await eventually(begun)


async def killed_again_and_again(loader: Any, publish: Callable[[int], Awaitable[None]]) -> None:
    """Kills a loader six times while messages come; each one lives for a moment in which it gets somewhere."""
    for _ in range(6):
        await publish(10)
        loader.kill()
        loader.start()
        await asyncio.sleep(0.3)


async def rebuilt(client: Any, rebuilds: int = 1) -> None:
    async def over() -> bool:
        try:
            found = [one for connection in (await status(client)).values() for one in connection.rebuilds]
        except Fault:
            return False
        return len(found) == rebuilds and all(one.done for one in found)

    await eventually(over)


async def state(client: Any) -> dict[str, list[list[Any]]]:
    """The rows of the tables that events fill."""
    found = {}
    for table in ("tracks", "bought", "identifies", "users", "pages", "discards"):
        of_events = "*" if table == "discards" else "* exclude (loaded_at, uuid_ts)"
        found[table] = sorted(await client.rows(f"select {of_events} from main.{table}"), key=json.dumps)
    return found


async def archived(client: Any, events: int) -> bool:
    request = pb.QueryRowsRequest(sql="select count(*) from cdi_archive.events", connection="second")
    try:
        answer = await rpc.call(client.stub.QueryRows, request, timeout=20.0)
    except Fault:
        return False
    return bool(next(iter(answer.rows[0])) == events)


async def test_a_warehouse_that_is_rebuilt_is_what_it_was(start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path) -> None:
    client = await ask(start_loader(**settings(tmp_path)))
    at = builders.EVENT_TIME
    for number in range(40):
        properties = {"price": number if number % 7 else "much", "n": {"deep": number}}
        events = [
            builders.track("Bought", message_id=f"t{number:02}", properties=properties),
            builders.page(message_id=f"p{number:02}"),
            builders.identify(message_id=f"i{number:02}", user_id=f"u{number % 5}", at=at + timedelta(number), traits={"n": number}),
        ]
        await enrichment.publish(events, partition=number % 4, source=number * 3 + 1)
    await client.loaded(120)
    await eventually(lambda: archived(client, 120))
    before, counts = await state(client), await client.counts()
    assert {table: len(rows) for table, rows in before.items()} == {
        "tracks": 40, "bought": 40, "identifies": 40, "users": 5, "pages": 40, "discards": 0,
    }  # fmt: skip
    begun = await rebuild(client)
    assert (begun.done, begun.number, begun.last_sequence) == (False, 1, 118)
    await rebuilt(client)
    assert await state(client) == before
    assert (await rebuild(client, table="bought")).number == 1
    await rebuilt(client, 2)
    assert await state(client) == before
    assert (await rebuild(client)).number == 2
    await rebuilt(client, 3)
    assert await state(client) == before
    assert await client.counts() == counts


async def test_events_that_arrive_meanwhile_come_once_over_kill_9(start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path) -> None:
    loader = start_loader(**settings(tmp_path))
    client = await ask(loader)
    sent = 0

    async def publish(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):
            events = [builders.track("Bought", message_id=f"m{sent + place}") for place in range(20)]
            await enrichment.publish(events, partition=sent // 20 % 3)
            sent += 20

    await publish(200)
    await client.loaded(sent)
    await rebuild(client)
    await killed_again_and_again(loader, publish)
    client = await ask(loader)
    await rebuilt(client)
    await client.loaded(sent)
    for table in ("tracks", "bought"):
        assert await client.rows(f"select count(*), count(distinct id) from main.{table}") == [[sent, sent]]
    assert await client.counts() == {("warehouse:main", "loaded"): sent}


async def test_what_touches_more_tables_than_memory_has_room_for_is_rebuilt_in_smaller_windows(
    start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path
) -> None:
    client = await ask(start_loader(**settings(tmp_path)))
    await enrichment.publish([builders.track(f"Kind {number}", message_id=f"m{number}") for number in range(150)])
    await enrichment.publish([builders.track("Kind 1", message_id="other")])
    await client.loaded(151)
    await eventually(lambda: archived(client, 151))
    await rebuild(client)
    await rebuilt(client)
    assert await client.rows("select count(*), count(distinct id) from main.tracks") == [[151, 151]]
    assert await client.rows("select id from main.kind_1 order by id") == [["m1"], ["other"]]
    assert await client.rows("select id from main.kind_149") == [["m149"]]


@pytest.fixture(params=["duckdb", "postgresql", "iceberg"])
def second_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("database_url"))
    return f"duckdb:{tmp_path}/second.duckdb" if request.param == "duckdb" else f"iceberg+sqlite://{tmp_path}/lake"


async def test_a_new_document_gets_what_was_before_it_and_nobody_who_was_erased(
    second_url: str, start_loader: Any, enrichment: Any, ask: Any, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    """The archive and the new warehouse are in one connection, of each engine."""
    consent, address = side
    warehouses = json.dumps({"second": second_url})
    client = await ask(start_loader(CDI_CONSENT_TARGET=address, CDI_WAREHOUSES=warehouses, CDI_ARCHIVE="second"))
    await apply_once_up(client, "first", connection="second", schema="first")
    agreed, other = builders.track(message_id="agreed", user_id="adam"), builders.track(message_id="other", user_id="adam")
    agreed.consent.granted_purposes.append("research")
    her_mail = builders.identify(message_id="mail", anonymous_id="x", traits={"email": "Eve@example.com"})
    await enrichment.publish([agreed, other, builders.track(message_id="hers", user_id="eve"), her_mail])
    await loaded(client, "", ["agreed", "hers", "other"])
    await eventually(lambda: archived(client, 4))
    asked = order(SERVICE, ("user_id", "eve"), ("email", "eve@example.com"))
    await tell(bus, asked)
    steps = await consent.reported(asked, SERVICE)
    assert steps["warehouse:second/cdi_archive.events"].count == 2
    assert await archived(client, 2)
    await apply_once_up(client, "late", connection="second", schema="late", purposes=["research"])
    await rebuild(client, "late")
    await rebuilt(client)
    request = pb.QueryRowsRequest(sql="select id from late.tracks", connection="second")
    answer = await rpc.call(client.stub.QueryRows, request, timeout=20.0)
    assert [next(iter(row)) for row in answer.rows] == ["agreed"]
    with pytest.raises(NotFound):
        await rebuild(client, "nobody")
    with pytest.raises(InvalidArgument):
        await rebuild(client, "late", table="profile_merges")


async def test_what_the_archive_does_not_hold_is_not_thrown_away(start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path) -> None:
    loader = start_loader(CDI_WAREHOUSES=second(tmp_path))
    client = await ask(loader)
    with pytest.raises(FailedPrecondition):
        await rebuild(client)
    await apply_once_up(client, "first", connection="second", schema="first")
    await enrichment.publish([builders.track(message_id="old")])
    await client.loaded(1)
    await eventually(lambda: kept(client, "first", ["old"]))
    await eventually(lambda: settled(client))
    loader.stop()
    client = await ask(start_loader(name="archiving", **settings(tmp_path)))
    await enrichment.publish([builders.track(message_id="new")])
    await eventually(lambda: archived(client, 1))
    with pytest.raises(FailedPrecondition):
        await rebuild(client)
    await enrichment.publish([builders.track("Seen", message_id="others", workspace_id="elsewhere")])
    await client.loaded(3)
    with pytest.raises(FailedPrecondition):
        await rebuild(client, table="seen")
    assert await client.value("select count(*) from tracks") == 3


async def test_an_event_that_breaks_the_load_stays_one_rejected_event(start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path) -> None:
    client = await ask(start_loader(**settings(tmp_path)))
    broken = builders.track("Broken", message_id="bad")
    broken.properties = b"[1, 2"
    await enrichment.publish([builders.track(message_id="good"), broken])
    await client.loaded(1)
    before = await client.rows("select rejection_id, message_id, payload, rejected_at from rejected_events")
    assert len(before) == 1
    await rebuild(client)
    await rebuilt(client)
    assert await client.rows("select rejection_id, message_id, payload, rejected_at from rejected_events") == before
    assert await client.rows("select id from tracks") == [["good"]]


async def kept(client: Any, schema: str, expected: list[str]) -> bool:
    return await ids(client, "second", f"{schema}.tracks") == expected


async def settled(client: Any) -> bool:
    found = await status(client)
    return not any(stream.pending for connection in found.values() for stream in connection.streams)
