"""What purposes say of warehouses, in force in a loader: rows that are not loaded, columns that are NULL, changes, consent away."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi.consent.v1.purpose_pb2 import Purpose, WarehouseRule
from cdi.event.v1.event_pb2 import Event
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_runtime import rpc
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, privacy_side
from tests.component.warehouse_loader.conftest import graph_changed

TOKEN = "planted-91bb"


@pytest.fixture
async def consents() -> AsyncIterator[tuple[Consents, str]]:
    """Consent's purposes, and its address."""
    servicer = Consents()
    async with privacy_side((add_ConsentServiceServicer_to_server, servicer)) as (_, address):
        yield servicer, address


def ads(*rules: WarehouseRule, version: int = 1) -> list[Purpose]:
    return [Purpose(workspace_id=builders.WORKSPACE, name="ads", warehouses=rules, version=version)]


def events(number: int) -> list[Event]:
    """An identify and a track of somebody who denies, and of somebody who grants."""
    made = []
    for who, granted in (("no", []), ("yes", ["ads"])):
        traits = {"email": f"{who}-{TOKEN}@example.com", "plan": "pro"}
        identify = builders.identify(message_id=f"i-{who}-{number}", user_id=who, traits=traits)
        track = builders.track(
            "Bought", message_id=f"t-{who}-{number}", user_id=who, properties={"coupon": f"{who}-{TOKEN}", "total": number}
        )
        for event in (identify, track):
            event.consent.granted_purposes.extend(granted)
            made.append(event)
    return made


async def test_one_warehouse_loads_nulls_another_leaves_rows_out_a_third_has_all(
    start_loader: Any, enrichment: Any, graph: Any, ask: Any, consents: tuple[Consents, str]
) -> None:
    servicer, address = consents
    client = await ask(start_loader(CDI_CONSENT_TARGET=address))
    for name in ("main", "rows", "whole"):
        warehouse = pb.Warehouse(workspace_id=builders.WORKSPACE, name=name, schema=f"in_{name}")
        await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=warehouse), timeout=10.0)
    columns = WarehouseRule(warehouse="main", columns=["traits.email", "properties.coupon"])
    servicer.purposes = ads(columns, WarehouseRule(warehouse="rows", rows=True))
    await enrichment.publish(events(1))
    await graph.change(
        graph_changed(
            created=[("email", f"no-{TOKEN}", "p"), ("user_id", "no", "p")], traits=[("p", "email", b'"x"'), ("p", "plan", b'"x"')]
        )
    )
    await client.loaded(4)
    await client.graph_loaded(1)
    bought = {
        name: await client.rows(f"select user_id, coupon, total from in_{name}.bought order by user_id")
        for name in ("main", "rows", "whole")
    }
    yes, no = ["yes", f"yes-{TOKEN}", 1], ["no", f"no-{TOKEN}", 1]
    assert bought == {"main": [["no", None, 1], yes], "rows": [yes], "whole": [no, yes]}
    for table, key in (("identifies", "user_id"), ("users", "id")):
        people = await client.rows(f"select {key}, email, plan from in_main.{table} order by {key}")
        assert people == [["no", None, "pro"], ["yes", f"yes-{TOKEN}@example.com", "pro"]]
    for name, types, names in (("main", ["user_id"], ["plan"]), ("rows", [], []), ("whole", ["email", "user_id"], ["email", "plan"])):
        found = await client.rows(f"select external_id_type from in_{name}.external_id_mapping_updates order by 1")
        assert [kind for (kind,) in found] == types
        assert [trait for (trait,) in await client.rows(f"select name from in_{name}.profile_traits_updates order by 1")] == names
    loaded = {("warehouse:main", "loaded"): 4, ("warehouse:rows", "loaded"): 2, ("warehouse:whole", "loaded"): 4}
    assert await client.counts() == loaded | {("warehouse:rows", "consent_denied"): 2}


async def test_a_changed_purpose_is_in_force_within_two_seconds_and_for_what_comes_then(
    start_loader: Any, enrichment: Any, ask: Any, consents: tuple[Consents, str]
) -> None:
    servicer, address = consents
    client = await ask(start_loader(CDI_CONSENT_TARGET=address))
    await enrichment.publish(events(1))
    await client.loaded(4)
    servicer.purposes = ads(WarehouseRule(warehouse="main", rows=True))
    number = 1

    async def filtered() -> bool:
        nonlocal number
        number += 1
        await enrichment.publish(events(number))
        await client.loaded(4 + 2 * (number - 1))
        return ("warehouse:main", "consent_denied") in await client.counts()

    await eventually(filtered)
    assert await client.value("select count(*) from bought where user_id = 'no' and total = 1") == 1
    assert await client.value(f"select count(*) from bought where user_id = 'no' and total = {number}") == 0


async def test_while_consent_never_answered_nothing_is_loaded_and_nothing_is_lost(
    start_loader: Any, enrichment: Any, ask: Any, consents: tuple[Consents, str]
) -> None:
    servicer, address = consents
    servicer.away = True
    servicer.purposes = ads(WarehouseRule(warehouse="main", rows=True))
    client = await ask(start_loader(CDI_CONSENT_TARGET=address))
    await enrichment.publish(events(1))
    await eventually(lambda: servicer.asked > 1)
    assert await client.counts() == {}
    servicer.away = False
    await client.loaded(2)
    # What is known stays while consent is away again.
    servicer.away = True
    await enrichment.publish(events(2))
    await client.loaded(4)
    assert await client.counts() == {("warehouse:main", "loaded"): 4, ("warehouse:main", "consent_denied"): 4}
    assert await client.rows("select distinct user_id from tracks") == [["yes"]]
