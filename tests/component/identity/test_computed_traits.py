"""Computed traits: a real identity process counts what a publisher that plays enrichment puts into ENRICHED."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import grpc
import pytest

from cdi.identity.v1 import computed_traits_service_pb2 as pb
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2 import ApplyIdentityRulesRequest, MergeProfilesRequest, SplitProfileRequest
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi.identity.v1.rules_pb2 import IdentityRules
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel.ids import fallback_profile_id
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders, eventually
from cdi_testing.builders import WORKSPACE

from .computed_calls import apply, caught_up, condition, counted, delete, order, publish, reading, states, trait, values
from .identity_calls import GraphAsTold, identifier, profile_of, resolve, seen, told
from .profile_calls import batch, code_of


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
    await connection.execute("TRUNCATE computed_traits, contributions, tallies, computed_values")
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


async def test_values_follow_a_merge_its_undoing_and_a_split(world: World) -> None:
    kinds = ("SUM", "MIN", "MAX", "FIRST", "LAST", "MOST_FREQUENT", "UNIQUE_LIST")
    await apply(world.computed, trait("orders"), *(trait(kind.lower(), kind, "properties.total") for kind in kinds))
    await apply(world.computed, trait("lately", window=timedelta(days=3_000)))
    await reading(world.bus)
    ada, visitor = await resolve(world.identity, seen("user_id:ada"), seen("anonymous_id:a1"))
    own = [order(ada.profile_id, total, user_id="ada", second=second) for second, total in ((1, 5), (3, 7))]
    device = [order(visitor.profile_id, total, anonymous_id="a1", second=second) for second, total in ((0, 9), (2, 7), (4, 1))]
    await counted(world.bus, own + device)
    of_ada = {"orders": 2, "sum": 12, "min": 5, "max": 7, "first": 5, "last": 7, "most_frequent": 5, "unique_list": [5, 7], "lately": 2}
    of_visitor = {"orders": 3, "sum": 17, "min": 1, "max": 9, "first": 9, "last": 1, "most_frequent": 1, "unique_list": [1, 7, 9]}
    of_visitor["lately"] = 3
    of_both = {"orders": 5, "sum": 29, "min": 1, "max": 9, "first": 9, "last": 1, "most_frequent": 7, "unique_list": [1, 5, 7, 9]}
    of_both["lately"] = 5
    assert await values(world.computed, ada.profile_id) == of_ada
    assert await values(world.computed, visitor.profile_id) == of_visitor

    await resolve(world.identity, seen("user_id:ada", "anonymous_id:a1"))
    assert await values(world.computed, ada.profile_id) == of_both
    assert await values(world.computed, visitor.profile_id) == of_both
    assert await traits_of(world, "user_id:ada") == of_both
    # While they are one, an event of the device comes: it is the device's after the undoing.
    await counted(world.bus, [order(ada.profile_id, 1, anonymous_id="a1", second=5)])
    part = SplitProfileRequest(workspace_id=WORKSPACE, request_id="r1", profile_id=ada.profile_id, merged_profile_id=visitor.profile_id)
    await world.identity.SplitProfile(part, timeout=20)
    assert await values(world.computed, ada.profile_id) == of_ada
    of_visitor |= {"orders": 4, "sum": 18, "lately": 4}
    assert await values(world.computed, visitor.profile_id) == of_visitor
    assert await traits_of(world, "anonymous_id:a1") == of_visitor

    # Identifiers that leave take what their events gave along; the rest stays.
    await resolve(world.identity, seen("anonymous_id:a1", "email:e"))
    merge = MergeProfilesRequest(workspace_id=WORKSPACE, request_id="r2", profile_id=ada.profile_id, other_profile_id=visitor.profile_id)
    await world.identity.MergeProfiles(merge, timeout=20)
    assert (await values(world.computed, ada.profile_id))["sum"] == 30
    take = SplitProfileRequest(workspace_id=WORKSPACE, request_id="r3", profile_id=ada.profile_id)
    take.identifiers.identifiers.append(identifier("anonymous_id:a1"))
    separated = (await world.identity.SplitProfile(take, timeout=20)).separated
    assert await values(world.computed, separated.profile_id) == of_visitor
    assert await values(world.computed, ada.profile_id) == of_ada
    await counted(world.bus, [*own, *device])
    assert await values(world.computed, ada.profile_id) == of_ada


async def test_changes_are_told_as_traits_and_give_the_same_picture(world: World) -> None:
    before = len(await told(world.bus))
    await apply(world.computed, trait("orders"), trait("top", "MAX", "properties.total"))
    await reading(world.bus)
    ada, visitor = await resolve(world.identity, seen("user_id:ada"), seen("anonymous_id:a1"))
    await counted(world.bus, [order(ada.profile_id, 9, user_id="ada"), order(visitor.profile_id, 5, anonymous_id="a1")])
    await resolve(world.identity, seen("user_id:ada", "anonymous_id:a1"))

    async def picture(profile_id: str) -> dict[str, object]:
        known = GraphAsTold((await told(world.bus))[before:]).traits.get(profile_id, {})
        return {name: json.loads(value) for name, value in known.items()}

    async def told_of_both() -> bool:
        return await picture(ada.profile_id) == {"orders": 2, "top": 9}

    await eventually(told_of_both)
    # The merged person's greatest value is the one it had: it is told again, since that of the part was told later.
    last = [entry for change in await told(world.bus) for entry in change.traits if entry.name == "top"][-1]
    assert (last.profile_id, last.value) == (ada.profile_id, b"9")

    await delete(world.computed, "top")

    async def told_that_it_is_gone() -> bool:
        return await picture(ada.profile_id) == {"orders": 2}

    await eventually(told_that_it_is_gone)


async def test_where_a_value_goes_the_trait_of_its_name_is_told_again(world: World) -> None:
    before = len(await told(world.bus))
    await apply(world.computed, trait("orders"), trait("lately", window=timedelta(seconds=4)))
    await reading(world.bus)
    ada, _ = await resolve(
        world.identity,
        seen("user_id:ada", traits=b'{"lately":"often"}', message_id="brought-lately"),
        seen("anonymous_id:a1", traits=b'{"orders":"many"}', message_id="brought-orders", second=7),
    )
    await resolve(world.identity, seen("user_id:ada", "anonymous_id:a1"))
    await counted(world.bus, [order(ada.profile_id, user_id="ada", at=datetime.now(UTC))])

    async def last(name: str) -> tuple[str, bytes, str, int]:
        changes = (await told(world.bus))[before:]
        entry = [entry for change in changes for entry in change.traits if entry.name == name][-1]
        return entry.profile_id, entry.value, entry.triggering_event_id, entry.event_time.seconds

    async def told_of_value() -> bool:
        return (await last("orders"))[1] == b"1"

    await eventually(told_of_value)
    await delete(world.computed, "orders")
    first = int(builders.EVENT_TIME.timestamp())

    async def told_again() -> bool:
        many = (ada.profile_id, b'"many"', "brought-orders", first + 7)
        often = (ada.profile_id, b'"often"', "brought-lately", first)
        return (await last("orders"), await last("lately")) == (many, often)

    await eventually(told_again)
    assert await traits_of(world, "user_id:ada") == {"orders": "many", "lately": "often"}


async def test_what_leaves_the_window_no_longer_counts(world: World) -> None:
    await apply(world.computed, trait("now", window=timedelta(seconds=4)), trait("seen", "LAST", "properties.total", timedelta(seconds=4)))
    await reading(world.bus)
    [ada] = await resolve(world.identity, seen("user_id:ada"))
    now = datetime.now(UTC)
    events = [order(ada.profile_id, 1, user_id="ada", at=now - timedelta(seconds=60)), order(ada.profile_id, 2, user_id="ada", at=now)]
    await counted(world.bus, events)
    assert await values(world.computed, ada.profile_id) == {"now": 1, "seen": 2}
    assert await traits_of(world, "user_id:ada") == {"now": 1, "seen": 2}

    async def gone() -> bool:
        return await traits_of(world, "user_id:ada") == {}

    await eventually(gone)
    assert await values(world.computed, ada.profile_id) == {}
    await counted(world.bus, events)
    assert await values(world.computed, ada.profile_id) == {}


async def test_another_definition_begins_anew_and_a_deleted_one_is_gone(world: World, module_database_url: str) -> None:
    [first] = await apply(world.computed, trait("orders"))
    [same] = await apply(world.computed, trait("orders"))
    assert (first.trait.version, first.changed, same.trait.version, same.changed) == (1, True, 1, False)
    await reading(world.bus)
    [ada] = await resolve(world.identity, seen("user_id:ada"))
    await counted(world.bus, [order(ada.profile_id, 1, user_id="ada")])
    [changed] = await apply(world.computed, trait("orders", conditions=[condition("properties.total", "GREATER", 1)]))
    assert (changed.trait.version, changed.changed) == (2, True)
    assert await values(world.computed, ada.profile_id) == {}
    await counted(world.bus, [order(ada.profile_id, total, user_id="ada") for total in (1, 2, "3", True)])
    assert await values(world.computed, ada.profile_id) == {"orders": 1}
    await delete(world.computed, "orders")
    assert await values(world.computed, ada.profile_id) == await states(world.computed) == {}
    assert await code_of(delete(world.computed, "orders")) == "NOT_FOUND"

    async def swept() -> bool:
        connection = await asyncpg.connect(module_database_url)
        tables = ("computed_traits", "contributions", "tallies", "computed_values")
        left = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
        await connection.close()
        return left == [0, 0, 0, 0]

    await eventually(swept)
    [again] = await apply(world.computed, trait("orders"))
    assert again.changed


async def test_a_wrong_definition_is_refused_field_by_field(world: World) -> None:
    wrong = [
        trait(""),
        trait("x", "SUM"),
        trait("x", "SUM", "total"),
        trait("x", path="properties.total"),
        trait("x", event_type="alias"),
        trait("x", event_type="identify"),
        trait("x", window=timedelta(days=-1)),
        trait("x", conditions=[condition("properties.total", "LESS", "3")]),
        trait("x", conditions=[pb.Condition(path="properties.a", operator=pb.CONDITION_OPERATOR_IN, values=["gold"])]),
        trait("x", conditions=[pb.Condition(path="properties.a")]),
        pb.ComputedTrait(workspace_id=WORKSPACE, name="x", event_type="track"),
    ]
    assert [await code_of(apply(world.computed, each)) for each in wrong] == ["INVALID_ARGUMENT"] * len(wrong)
    unknown = pb.GetComputedValuesRequest(workspace_id=WORKSPACE, profile_id="nobody")
    assert await code_of(world.computed.GetComputedValues(unknown, timeout=10)) == "NOT_FOUND"


async def test_events_of_nobody_and_of_wrong_json_cost_nothing(world: World) -> None:
    [ada] = await resolve(world.identity, seen("user_id:ada"))
    await apply(world.computed, trait("orders"), trait("value", "SUM", "properties.total"))
    await reading(world.bus)
    letters = await world.bus.last_sequence(StreamName.DEAD_LETTERS)
    nobody = fallback_profile_id(WORKSPACE, "ada", "", "")
    events = [
        order(nobody, 1, user_id="ada"),
        order("", 1, user_id="ada"),
        order("no profile", 1, user_id="ada"),
        order(ada.profile_id, 1, user_id="ada", workspace_id="other"),
        order(ada.profile_id, user_id="ada\0", message_id="m\0", properties={"total": 2}),
        *(order(ada.profile_id, user_id="ada", properties=None, message_id=f"w{number}") for number in range(4)),
    ]
    for event, payload in zip(events[-4:], (b"{", b"[1]", b'{"total":1e400}', b'{"total":' + b"[" * 5_000), strict=True):
        event.properties = payload
    await counted(world.bus, events)
    assert await values(world.computed, ada.profile_id) == {"orders": 5, "value": 2}
    assert await world.bus.last_sequence(StreamName.DEAD_LETTERS) == letters


async def test_a_profile_with_ten_thousand_events(world: World) -> None:
    [ada] = await resolve(world.identity, seen("user_id:ada"))
    await apply(world.computed, trait("orders"), trait("value", "SUM", "properties.total"), trait("week", window=timedelta(days=7)))
    await reading(world.bus)
    now = datetime.now(UTC)
    for _ in range(20):
        last = await publish(world.bus, [order(ada.profile_id, 0.1, user_id="ada", at=now) for _ in range(500)])
    await caught_up(world.bus, last)
    assert await values(world.computed, ada.profile_id) == {"orders": 10_000, "value": 1_000, "week": 10_000}


async def traits_of(world: World, key: str) -> dict[str, object]:
    profile = await profile_of(world.identity, key)
    assert profile is not None
    return json.loads(profile.traits)
