"""The events of a person: a real identity process that asks a real warehouse-loader."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profiles_service_pb2 import ListProfileEventsRequest, ProfileEvent
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi.warehouse.v1 import warehouse_service_pb2 as warehouse_pb
from cdi.warehouse.v1.warehouse_service_pb2_grpc import WarehouseServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel import envelope, topology
from cdi_kernel.ids import fallback_profile_id
from cdi_runtime import rpc
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders, eventually
from cdi_testing.builders import WORKSPACE

from .conftest import WAREHOUSE_TOKEN
from .identity_calls import resolve, seen
from .profile_calls import code_of, events_of, key

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class World:
    """The graph, the warehouse, and a publisher that plays enrichment."""

    bus: Bus
    identity: IdentityServiceStub
    profiles: ProfilesServiceStub
    warehouse: WarehouseServiceStub

    async def load(self, events: Sequence[Event]) -> None:
        """Publishes enriched events and returns when they are rows."""
        ack = await self.bus.publish(
            topology.enriched(0),
            EventBatch(events=events).SerializeToString(),
            message_id=builders.message_id(),
            headers={envelope.EVENTS: str(len(events)), envelope.SOURCE_SEQUENCE: "0"},
        )
        await eventually(lambda: self._loaded(ack.sequence))

    async def _loaded(self, sequence: int) -> bool:
        sql = f"select count(*) from _cdi.progress where stream = 'ENRICHED' and sequence >= {sequence}"
        try:
            answer = await self.warehouse.QueryRows(warehouse_pb.QueryRowsRequest(sql=sql), timeout=20)
        except grpc.aio.AioRpcError:
            return False
        return answer.rows[0].values[0].number_value > 0


@pytest.fixture
async def world(identity_with_history: ServiceProcess, loader: ServiceProcess, module_nats: NatsServer) -> AsyncIterator[World]:
    options = [("grpc.max_receive_message_length", 1 << 24)]
    async with (
        connect(module_nats.url, "test") as bus,
        grpc.aio.insecure_channel(identity_with_history.grpc, options=options) as asked,
        rpc.channel(loader.grpc, token=WAREHOUSE_TOKEN) as warehouse,
    ):
        yield World(bus, IdentityServiceStub(asked), ProfilesServiceStub(asked), WarehouseServiceStub(warehouse))


def ago(event: Event, hours: float, profile_id: str) -> Event:
    """The event as it happened so long ago, and as it was resolved."""
    event.event_time.FromDatetime(NOW - timedelta(hours=hours))
    event.identity.profile_id = profile_id
    return event


def ids(pages: Sequence[Sequence[ProfileEvent]]) -> list[str]:
    return [event.message_id for page in pages for event in page]


async def test_the_events_of_a_merged_person_whatever_they_carried(world: World) -> None:
    visit, ada, bob = await resolve(world.identity, seen("anonymous_id:a'1"), seen("user_id:ada"), seen("user_id:bob"))
    await resolve(world.identity, seen("user_id:ada", "anonymous_id:a'1"))
    unlinked = fallback_profile_id(WORKSPACE, "ada", "", "")
    order = builders.track("Order Completed", message_id="e1", user_id="ada", properties={"total": 9.5, "big": 2**60, "gone": None})
    await world.load(
        [
            ago(order, 1, ada.profile_id),
            ago(builders.page("Home", message_id="e2", anonymous_id="a'1", properties={"url": "https://x/"}), 2, visit.profile_id),
            ago(builders.identify(message_id="e3", user_id="ada", traits={"plan": "pro"}), 3, visit.profile_id),
            ago(builders.track("Users", message_id="e4", user_id="nobody", properties={"event": "x", "id": 7}), 4, ada.profile_id),
            ago(builders.group("acme", message_id="e5", user_id="ada", traits={"seats": 3}), 5, ada.profile_id),
            ago(builders.track("Order Completed", message_id="x1", user_id="ada"), 15 * 24, ada.profile_id),
            ago(builders.track("Order Completed", message_id="x2", user_id="ada"), 1, unlinked),
            ago(builders.track("Order Completed", message_id="x3", user_id="bob", anonymous_id="a'1"), 1, bob.profile_id),
            ago(builders.track("Order Completed", message_id="x4", user_id="ada", workspace_id="other"), 1, ada.profile_id),
        ]
    )
    for who in ("anonymous_id:a'1", ada.profile_id, "user_id:ada"):
        [page] = await events_of(world.profiles, who)
        assert [(event.message_id, event.type, event.name) for event in page] == [
            ("e1", "track", "Order Completed"),
            ("e2", "page", "Home"),
            ("e3", "identify", ""),
            ("e4", "track", "Users"),
            ("e5", "group", ""),
        ]
    shown = {event.message_id: json.loads(event.properties) for event in page}
    assert shown["e1"] == {"total": 9.5, "big": 2**60}
    assert shown["e2"] == {"name": "Home", "url": "https://x/"}
    assert shown["e3"] == {"plan": "pro"}
    assert shown["e4"] == {"_event": "x", "_id": 7}
    assert shown["e5"] == {"group_id": "acme", "seats": 3}
    assert page[0].source_id == builders.SOURCE
    assert page[0].event_time.ToDatetime(UTC) == NOW - timedelta(hours=1)
    assert ids(await events_of(world.profiles, "user_id:ada", event_names=["Home", "Users", "'; --"])) == ["e2", "e4"]
    assert ids(await events_of(world.profiles, "user_id:bob")) == ["x3"]


async def test_pages_hold_every_event_once_also_where_most_are_others(world: World) -> None:
    device, guest = await resolve(world.identity, seen("anonymous_id:tablet"), seen("user_id:guest"))
    own = [builders.track("Tapped", message_id=f"own{n:02}", anonymous_id="tablet") for n in range(25)]
    others = [builders.track("Tapped", message_id=f"other{n:02}", user_id="guest", anonymous_id="tablet") for n in range(60)]
    events = [ago(event, 1 + n // 3, device.profile_id) for n, event in enumerate(own)]
    events += [ago(event, 0.5, guest.profile_id) for event in others]
    await world.load(events)
    expected = [f"own{n:02}" for n in sorted(range(25), key=lambda n: (n // 3, -n))]
    for size in (7, 100):
        assert ids(await events_of(world.profiles, "anonymous_id:tablet", page_size=size)) == expected
    assert len(ids(await events_of(world.profiles, "user_id:guest", page_size=50))) == 60


async def test_many_large_properties_come_in_shorter_pages(world: World) -> None:
    [made] = await resolve(world.identity, seen("user_id:large"))
    text: dict[str, Any] = {"text": "x" * 30_000}
    for part in range(2):
        events = [builders.track("Large", message_id=f"l{part}{n:03}", user_id="large", properties=text) for n in range(110)]
        for event in events:
            ago(event, 2, made.profile_id)
        for start in range(0, len(events), 15):
            await world.load(events[start : start + 15])
    pages = await events_of(world.profiles, "user_id:large", page_size=1_000)
    assert len(pages) == 2
    assert sorted(ids(pages)) == sorted(f"l{part}{n:03}" for part in range(2) for n in range(110))
    assert all(len(event.properties) > 30_000 for page in pages for event in page)


async def test_a_warehouse_that_is_away_is_unavailable_and_the_rest_goes_on(
    world: World, loader: ServiceProcess, identity_with_history: ServiceProcess
) -> None:
    await resolve(world.identity, seen("user_id:u"))
    loader.stop()
    try:
        request = ListProfileEventsRequest(workspace_id=WORKSPACE, key=key("user_id:u"))
        assert await code_of(world.profiles.ListProfileEvents(request, timeout=30)) == "UNAVAILABLE"
        assert await code_of(world.profiles.ListProfileEvents(request, timeout=30)) == "UNAVAILABLE"
        assert [item.created for item in await resolve(world.identity, seen("user_id:u"))] == [False]
    finally:
        loader.start()
    await eventually(lambda: _answers(world, request))


async def _answers(world: World, request: ListProfileEventsRequest) -> bool:
    return await code_of(world.profiles.ListProfileEvents(request, timeout=30)) == "OK"
