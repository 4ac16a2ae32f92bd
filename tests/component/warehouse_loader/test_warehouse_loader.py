"""The loader as a process: exact rows, new columns, conflicts, filters, side tables, poison."""

from typing import Any

import pytest

from cdi.error.v1 import error_pb2
from cdi.event.v1.rejected_event_pb2 import FAILURE_TYPE_SCHEMA_VIOLATION, RejectedBatch, RejectedEvent
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1 import warehouse_service_pb2_grpc as pb_grpc
from cdi_kernel import topology
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, TooLarge, Unauthenticated
from cdi_runtime import rpc
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from cdi_warehouse_loader.domain.load_size import GROWTH


async def test_every_kind_of_event_is_a_row_with_its_columns(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await enrichment.publish(
        [
            builders.track("Order Completed", message_id="t1", properties={"total": 9.5, "items": [1, 2], "ship": {"to": "DE"}}),
            builders.page("Home", message_id="p1", properties={"url": "https://shop.example/"}, context={"ip": "10.0.0.1"}),
            builders.screen("Start", message_id="s1"),
            builders.identify(message_id="i1", user_id="ada", traits={"email": "ada@example.com"}),
            builders.group("acme", message_id="g1", traits={"plan": "pro"}),
            builders.alias("old", message_id="a1"),
        ],
        partition=3,
    )
    await client.loaded(6)
    assert await client.rows("select id, event_text, total, items, ship_to, partition, event_seq from order_completed") == [
        ["t1", "Order Completed", 9.5, "[1,2]", "DE", 3, 1024]
    ]
    assert await client.rows("select id, event from tracks") == [["t1", "order_completed"]]
    assert await client.rows("select id, name, url, context_ip, received_at from pages") == [
        ["p1", "Home", "https://shop.example/", "10.0.0.1", "2026-01-15T12:00:00+00:00"]
    ]
    assert await client.rows("select id, name from screens") == [["s1", "Start"]]
    assert await client.rows("select id, email from identifies") == [["i1", "ada@example.com"]]
    assert await client.rows("select id, email from users") == [["ada", "ada@example.com"]]
    assert await client.rows("select id, group_id, plan from groups") == [["g1", "acme", "pro"]]
    assert await client.rows("select id, plan from accounts") == [["acme", "pro"]]
    assert await client.rows("select id, previous_id, user_id from aliases") == [["a1", "old", "user-1"]]
    assert await client.counts() == {("warehouse:main", "loaded"): 6}


async def test_columns_appear_widen_and_survive_a_restart(start_loader: Any, enrichment: Any, ask: Any) -> None:
    loader = start_loader()
    client = await ask(loader)
    await enrichment.publish([builders.track("Paid", message_id="m1", properties={"amount": 1})])
    await client.loaded(1)
    await enrichment.publish([builders.track("Paid", message_id="m2", properties={"amount": 2.5, "currency": "EUR"})])
    await client.loaded(2)
    loader.restart()
    client = await ask(loader)
    await enrichment.publish([builders.track("Paid", message_id="m3", properties={"amount": "lots", "first": True})])
    await client.loaded(3)
    assert await client.rows("select id, amount, currency, first from paid order by id") == [
        ["m1", 1.0, None, None],
        ["m2", 2.5, "EUR", None],
        ["m3", None, None, True],
    ]
    assert await client.rows("select message_id, table_name, column_name, column_value, reason from discards") == [
        ["m3", "paid", "amount", "lots", "type_conflict"]
    ]


async def test_strange_values_never_stop_a_load(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    strange = b'{"n":123456789012345678901234567890,"z":"a\\u0000b","e":{},"l":[],"x":null,"\\"; drop table tracks; --":1,"":2}'
    await enrichment.publish([builders.track("Odd", message_id="m1", properties=None), builders.track("O\"dd'; --", message_id="m2")])
    await enrichment.publish([builders.event(name="Odd", message_id="m3", properties=None)])
    event = builders.track("Odd", message_id="m4")
    event.properties = strange
    await enrichment.publish([event])
    await client.loaded(4)
    ((number, text, empty, drop),) = await client.rows("select n, z, l, _drop_table_tracks from odd where id = 'm4'")
    assert (number, text, empty, drop) == ("123456789012345678901234567890", "a\x00b", "[]", 1)
    assert await client.value("select count(*) from tracks") == 4


async def test_newer_traits_win_whatever_the_order(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    noon = builders.EVENT_TIME
    await enrichment.publish([builders.identify(user_id="u", traits={"plan": "pro"}, at=noon.replace(hour=14))])
    await client.loaded(1)
    await enrichment.publish([builders.identify(user_id="u", traits={"plan": "free", "city": "Bonn"}, at=noon.replace(hour=13))])
    await client.loaded(2)
    await enrichment.publish([builders.identify(user_id="u", traits={"age": 40}, at=noon.replace(hour=15))])
    await client.loaded(3)
    assert await client.rows("select id, plan, city, age from users") == [["u", "pro", "Bonn", 40]]


async def test_redelivery_and_a_second_publication_load_once(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    events = [builders.track(message_id=f"m{n}") for n in range(5)]
    source = await enrichment.publish(events)
    await client.loaded(5)
    await enrichment.publish(events, source=source)
    await enrichment.publish([builders.track(message_id="last")])
    await client.loaded(6)
    assert await client.rows("select count(*), count(distinct id) from tracks") == [[6, 6]]


async def test_poison_is_kept_as_rejected_and_the_rest_is_loaded(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    good = [builders.track(message_id=f"m{n}") for n in range(20)]
    broken = builders.track("Broken", message_id="bad")
    broken.properties = b"[1, 2"
    await enrichment.publish([*good[:9], broken, *good[9:]])
    await client.loaded(20)
    assert await client.counts() == {("warehouse:main", "loaded"): 20, ("warehouse:main", "poison_event"): 1}
    assert await client.rows("select message_id, failure_type, reason, stage, payload_encoding from rejected_events") == [
        ["bad", "loader_failure", "poison_event", "warehouse-loader", "base64"]
    ]
    assert await client.rows("select count(*), count(distinct id) from tracks") == [[20, 20]]


async def test_hundreds_of_tables_at_once_fit_into_little_memory(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader(CDI_LOAD_LINGER_SECONDS="1"))
    for part in range(6):
        wide = {f"p{n}": "x" for n in range(20)}
        await enrichment.publish([builders.track(f"Kind {part}-{n}", properties=wide) for n in range(50)])
    await client.loaded(300, within=120.0)
    assert await client.value("select count(*) from tracks") == 300
    assert await client.value("select count(*) from duckdb_tables() where table_name like 'kind%'") == 300


async def test_what_waits_is_loaded_in_larger_parts_when_loads_touch_many_tables(start_loader: Any, enrichment: Any, ask: Any) -> None:
    for part in range(30):
        await enrichment.publish([builders.track(f"Kind {n}", message_id=f"m{part}-{n}") for n in range(10)])
    client = await ask(start_loader(CDI_LOAD_MAX_EVENTS="10"))
    await client.loaded(300)
    assert await client.rows("select count(*), count(distinct id) from tracks") == [[300, 300]]
    sizes = [events for (events,) in await client.rows("select events from _cdi.loads where tables > 0 order by started_at")]
    assert (sizes[0], max(sizes)) == (10, 10 * GROWTH)


async def test_one_message_that_touches_more_tables_than_memory_has_room_for_is_loaded_in_parts(
    start_loader: Any, enrichment: Any, ask: Any
) -> None:
    client = await ask(start_loader())
    wide = {f"p{n}": "x" for n in range(20)}
    message = [builders.track(f"Kind {n}", message_id=f"m{n}", properties=wide) for n in range(400)]
    number = await enrichment.publish(message)
    await enrichment.publish([builders.track("Kind 1", message_id="after")])
    await client.loaded(401, within=120.0)
    await enrichment.publish(message, source=number)
    await enrichment.publish([builders.track("Kind 2", message_id="last")])
    await client.loaded(402)
    assert await client.rows("select count(*), count(distinct id) from tracks") == [[402, 402]]
    assert await client.rows("select id from kind_1 order by id") == [["after"], ["m1"]]
    assert (await client.counts())["warehouse:main", "loaded"] == 402
    assert await client.value("select count(*) from _cdi.progress where stream = 'ENRICHED:part'") >= 1


async def test_consent_decides_per_warehouse(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    for name, schema, purposes in (("main", "main", []), ("marketing", "marketing", ["advertising"])):
        document = pb.Warehouse(workspace_id=builders.WORKSPACE, name=name, purposes=purposes, schema=schema)
        applied = await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=document), timeout=5.0)
        assert (applied.changed, applied.warehouse.version) == (True, 1)
        again = await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=document), timeout=5.0)
        assert (again.changed, again.warehouse.version) == (False, 1)
    twin = pb.Warehouse(workspace_id=builders.WORKSPACE, name="twin", schema="marketing")
    with pytest.raises(FailedPrecondition):
        await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=twin), timeout=5.0)
    granted, denied = builders.track(message_id="yes"), builders.track(message_id="no")
    granted.consent.granted_purposes.append("advertising")
    await enrichment.publish([granted, denied])
    await client.loaded(2)
    assert await client.rows("select id from marketing.tracks") == [["yes"]]
    assert await client.counts() == {
        ("warehouse:main", "loaded"): 2,
        ("warehouse:marketing", "loaded"): 1,
        ("warehouse:marketing", "consent_denied"): 1,
    }
    listed = await rpc.call(client.stub.ListWarehouses, pb.ListWarehousesRequest(workspace_id=builders.WORKSPACE, page_size=1), timeout=5.0)
    assert ([one.name for one in listed.warehouses], listed.next_page_token) == (["main"], "main")


async def test_rejected_events_are_rows_once(start_loader: Any, bus: Bus, ask: Any) -> None:
    client = await ask(start_loader())
    rejected = RejectedEvent(
        rejection_id="COLLECTED-1-0",
        workspace_id=builders.WORKSPACE,
        failure_type=FAILURE_TYPE_SCHEMA_VIOLATION,
        reason="schema_violation",
        stage="enrichment",
        payload=b"\x00\xff",
        violation_paths=["/properties/total"],
    )
    client_text = RejectedEvent(
        rejection_id="u1", workspace_id=builders.WORKSPACE, reason="missing_identity", stage="collector", payload=b"{}"
    )
    for number in range(3):
        batch = RejectedBatch(events=[rejected, client_text] if number == 2 else [rejected])
        await bus.publish(topology.rejected(builders.WORKSPACE), batch.SerializeToString(), message_id=f"r{number}")

    async def both() -> bool:
        return await client.counts() == {("rejected", "enrichment:schema_violation"): 1, ("rejected", "collector:missing_identity"): 1}

    await eventually(both)
    rows = await client.rows(
        "select rejection_id, failure_type, payload, payload_encoding, violation_paths from rejected_events order by 1"
    )
    assert rows == [
        ["COLLECTED-1-0", "schema_violation", "AP8=", "base64", '["/properties/total"]'],
        ["u1", "unspecified", "{}", "text", "[]"],
    ]


REFUSED = (
    "select 1; select 2",
    "",
    "insert into tracks select * from tracks",
    "with gone as (delete from tracks returning id) select * from gone",
    "explain analyze delete from tracks",
    "create table x as select 1",
    "attach '/etc/passwd' as x",
    "copy tracks to '/tmp/x.csv'",
    "select * from read_text('/etc/hostname')",
    "select * from read_csv('/etc/passwd')",
    "set threads = 4",
    "pragma database_list",
    "install httpfs",
    "select nonsense from",
    "checkpoint",
)


async def test_only_one_reading_statement_is_allowed(querying: Any) -> None:
    for sql in REFUSED:
        with pytest.raises(InvalidArgument) as caught:
            await querying.query(sql)
        assert caught.value.reason == error_pb2.ERROR_REASON_QUERY_REFUSED, sql
    assert await querying.value("select count(*) from tracks") == 1


async def test_limits_of_a_query(querying: Any) -> None:
    few = await querying.query("select * from range(50)", 10)
    assert (len(few.rows), few.truncated) == (10, True)
    all_of_them = await querying.query("select * from range(10)", 10)
    assert (len(all_of_them.rows), all_of_them.truncated) == (10, False)
    for sql in ("select repeat('x', 1000000) from range(9)", "select count(*) from range(100000000000) a"):
        with pytest.raises(TooLarge) as caught:
            await querying.query(sql)
        assert caught.value.reason == error_pb2.ERROR_REASON_QUERY_REFUSED
    with pytest.raises(Fault):
        await querying.query("select 1", -1)


async def test_values_of_a_query(querying: Any) -> None:
    answer = await querying.query(
        "select 1::decimal(9,2) d, timestamptz '2026-01-15 12:00:00+00' t, date '2026-01-15' as day, 2**40 f, 9007199254740993 big, "
        "'nan'::double n, [1, 2] l, null x, true b, '\\x00'::blob as raw"
    )
    assert list(answer.rows[0]) == [
        "1.00", "2026-01-15T12:00:00+00:00", "2026-01-15", float(2**40), "9007199254740993", "nan", "[1, 2]", None, True, "00",
    ]  # fmt: skip
    assert answer.columns[1].type == "TIMESTAMP WITH TIME ZONE"
    for sql in ("describe tracks", "show tables", "explain select 1", "from tracks", "with a as (select 1) select * from a"):
        assert (await querying.query(sql)).rows


@pytest.fixture
async def querying(start_loader: Any, enrichment: Any, ask: Any) -> Any:
    """A loader with one event, and two seconds for a query."""
    client = await ask(start_loader(CDI_QUERY_SECONDS="2"))
    await enrichment.publish([builders.track(message_id="m1")])
    await client.loaded(1)
    return client


@pytest.mark.parametrize("token", ["", "a-partner's"])
async def test_without_an_admin_token_the_warehouse_says_nothing(start_loader: Any, ask: Any, token: str) -> None:
    loader = start_loader()
    await ask(loader)
    async with rpc.channel(loader.grpc, token=token) as made:
        stub = pb_grpc.WarehouseServiceStub(made)
        warehouse = pb.Warehouse(workspace_id=builders.WORKSPACE, name="mine", schema="mine")
        for method, request in (
            (stub.QueryRows, pb.QueryRowsRequest(sql="select 1")),
            (stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=warehouse)),
            (stub.ListWarehouses, pb.ListWarehousesRequest(workspace_id=builders.WORKSPACE)),
            (stub.CountOutcomes, pb.CountOutcomesRequest()),
        ):
            with pytest.raises(Unauthenticated):
                await rpc.call(method, request, timeout=10.0)
