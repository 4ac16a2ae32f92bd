"""Filling computed traits: a real identity process asks a real warehouse-loader for the events from before a definition."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from cdi.event.v1.event_pb2 import Event
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel.ids import fallback_profile_id
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders, eventually
from cdi_testing.builders import WORKSPACE

from .computed_calls import apply, condition, order, publish, states, trait, values
from .identity_calls import resolve, seen

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class World:
    """The bus, and identity's services."""

    bus: Bus
    identity: IdentityServiceStub
    computed: ComputedTraitsServiceStub


@pytest.fixture
async def world(identity_with_history: ServiceProcess, module_nats: NatsServer) -> AsyncIterator[World]:
    async with connect(module_nats.url, "test") as bus, grpc.aio.insecure_channel(identity_with_history.grpc) as channel:
        yield World(bus, IdentityServiceStub(channel), ComputedTraitsServiceStub(channel))


async def filled(world: World, *names: str) -> None:
    """Returns when definitions are filled."""

    async def done() -> bool:
        known = await states(world.computed)
        return all(known[name].filled for name in names)

    await eventually(done, within=60)


def ago(event: Event, hours: float) -> Event:
    event.event_time.FromDatetime(NOW - timedelta(hours=hours))
    return event


async def test_events_from_before_a_definition_are_counted_by_it(world: World) -> None:
    ada, visitor = await resolve(world.identity, seen("user_id:ada"), seen("anonymous_id:a1"))
    nobody = fallback_profile_id(WORKSPACE, "x", "", "")
    fields = {"user_id": "ada"}
    past = [
        ago(order(ada.profile_id, 0.1, message_id="o1", **fields), 1),
        ago(order(ada.profile_id, 0.2, message_id="o2", **fields), 30),
        ago(order(visitor.profile_id, 5, message_id="o3", anonymous_id="a1"), 2),
        ago(order(nobody, 7, message_id="o4", **fields), 2),
        ago(order(ada.profile_id, message_id="o5", properties={"total": "much", "orderItems": {"firstSku": "s1"}}, **fields), 3),
        ago(order(ada.profile_id, message_id="o6", properties={"total": 1, "orderItems": {"firstSku": "s2"}}, user_id="a1"), 4),
    ]
    shared = order(ada.profile_id, 9, message_id="o7", user_id="ada", anonymous_id="a1")
    shared.identity.demoted_identifier_types.append("user_id")
    past.append(ago(shared, 5))
    page = builders.page("Home", message_id="p1", context={"library": {"name": "web"}}, **fields)
    page.identity.profile_id = ada.profile_id
    await publish(world.bus, [*past, ago(page, 6)])
    await apply(
        world.computed,
        trait("orders"),
        trait("value", "SUM", "properties.total"),
        trait("today", window=timedelta(hours=24)),
        trait("skus", "UNIQUE_LIST", "properties.orderItems.firstSku"),
        trait("small", conditions=[condition("properties.total", "LESS", 0.15)]),
        trait("homes", event_type="page", event_names=["Home"], conditions=[condition("context.library.name", "IN", "web")]),
    )
    await filled(world, "orders", "value", "today", "skus", "small", "homes")
    assert await values(world.computed, ada.profile_id) == {
        "orders": 4,
        "value": "1.3",
        "today": 3,
        "skus": ["s1", "s2"],
        "small": 1,
        "homes": 1,
    }
    assert await values(world.computed, visitor.profile_id) == {"orders": 2, "value": 14, "today": 2}


async def test_filling_beside_the_stream_leaves_no_gap_and_counts_nothing_twice(world: World) -> None:
    [eve] = await resolve(world.identity, seen("user_id:eve"))
    sent = 0

    async def send() -> None:
        nonlocal sent
        for number in range(60):
            event = order(eve.profile_id, 0.1, user_id="eve", message_id=f"e{number}")
            repeated = order(eve.profile_id, 0.1, user_id="eve", message_id=f"e{max(0, number - 7)}")
            await publish(world.bus, [event, repeated], partition=number % 8)
            sent += 1
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(send())
    await eventually(lambda: sent > 15)
    await apply(world.computed, trait("eves"), trait("eves_value", "SUM", "properties.total"))
    await sending
    await filled(world, "eves", "eves_value")

    async def exact() -> bool:
        found = await values(world.computed, eve.profile_id)
        return {name: found.get(name) for name in ("eves", "eves_value")} == {"eves": 60, "eves_value": 6}

    await eventually(exact)
