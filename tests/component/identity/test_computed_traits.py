"""Computed traits: a real identity process counts what a publisher that plays enrichment puts into ENRICHED."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import grpc
import pytest

from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2 import ApplyIdentityRulesRequest
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi.identity.v1.rules_pb2 import IdentityRules
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders
from cdi_testing.builders import WORKSPACE

from .computed_calls import apply, counted, delete, order, reading, trait, values
from .identity_calls import profile_of, resolve, seen
from .profile_calls import batch


@dataclass
class World:
    """The bus, and identity's services."""

    bus: Bus
    identity: IdentityServiceStub
    computed: ComputedTraitsServiceStub
    profiles: ProfilesServiceStub


@pytest.fixture
async def world(shared_identity: ServiceProcess, module_nats: NatsServer, module_database_url: str) -> AsyncIterator[World]:
    connection = await asyncpg.connect(module_database_url)
    await connection.execute("TRUNCATE computed_traits, contributions, computed_values")
    await connection.close()
    async with connect(module_nats.url, "test") as bus, grpc.aio.insecure_channel(shared_identity.grpc) as channel:
        yield World(bus, IdentityServiceStub(channel), ComputedTraitsServiceStub(channel), ProfilesServiceStub(channel))


async def test_every_aggregation_over_the_events_of_a_person(world: World) -> None:
    [ada, bob] = await resolve(world.identity, seen("user_id:ada"), seen("user_id:bob"))
    kinds = ("SUM", "AVERAGE", "MIN", "MAX", "MOST_FREQUENT", "FIRST", "LAST", "UNIQUE_LIST", "UNIQUE_COUNT")
    await apply(world.computed, trait("orders"), *(trait(kind.lower(), kind, "properties.total") for kind in kinds))
    await reading(world.bus)
    totals = [0.1, 0.2, "none", 3, 3.0, 0.2, None, True]
    events = [order(ada.profile_id, total, user_id="ada", second=-second) for second, total in enumerate(totals)]
    await counted(world.bus, [*events, order(bob.profile_id, 7, user_id="bob"), builders.page(user_id="ada")])
    assert await values(world.computed, ada.profile_id) == {
        "orders": 8,
        "sum": "6.5",
        "average": "1.3",
        "min": "0.1",
        "max": 3,
        "most_frequent": "0.2",
        "first": True,
        "last": "0.1",
        "unique_list": ["none", "0.1", "0.2", 3, True],
        "unique_count": 5,
    }
    assert (await values(world.computed, bob.profile_id))["sum"] == 7


async def test_what_comes_again_is_counted_once(world: World) -> None:
    [ada] = await resolve(world.identity, seen("user_id:ada"))
    await apply(world.computed, trait("orders"), trait("value", "SUM", "properties.total"))
    await reading(world.bus)
    events = [order(ada.profile_id, 1.1, user_id="ada") for _ in range(3)]
    await counted(world.bus, [*events, *events])
    await counted(world.bus, events)
    assert await values(world.computed, ada.profile_id) == {"orders": 3, "value": "3.3"}


async def test_a_value_is_a_trait_of_the_profile_before_one_that_events_brought(world: World) -> None:
    [ada] = await resolve(world.identity, seen("user_id:ada", traits=b'{"orders":"many","plan":"pro"}'))
    rules = IdentityRules(workspace_id=WORKSPACE, event_traits=["orders", "plan"])
    await world.identity.ApplyIdentityRules(ApplyIdentityRulesRequest(rules=rules))
    await apply(world.computed, trait("orders"), trait("value", "SUM", "properties.total"))
    await reading(world.bus)
    await counted(world.bus, [order(ada.profile_id, total, user_id="ada") for total in (0.1, 0.2)])
    shown = await profile_of(world.identity, "user_id:ada")
    assert json.loads(shown.traits) == {"orders": 2, "plan": "pro", "value": 0.3}
    [found] = await batch(world.profiles, "user_id:ada", trait_names=["orders"], include_provenance=True)
    assert json.loads(found.profile.traits) == {"orders": 2}
    assert [item.name for item in found.provenance] == ["orders"]
    [known] = await resolve(world.identity, seen("user_id:ada"))
    assert json.loads(known.chosen_traits) == {"orders": 2, "plan": "pro"}
    await delete(world.computed, "orders")
    [known] = await resolve(world.identity, seen("user_id:ada"))
    assert json.loads(known.chosen_traits) == {"orders": "many", "plan": "pro"}
