"""Computed traits against a naive model, and under crashes: whatever comes again, merges or is killed, values are what events come to."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest

from cdi.event.v1.event_pb2 import Event
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2 import MergeProfilesRequest, SplitProfileRequest
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_runtime.bus import Bus
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE, message_id
from cdi_testing.plugin import MigratedDatabases, StartService

from .computed_calls import apply, caught_up, condition, counted, order, publish, reading, states, trait, values
from .conftest import Client
from .identity_calls import profile_of, resolve, seen

NOW = datetime.now(UTC).replace(microsecond=0)
TOTALS = [0.1, 0.2, 3, 3.0, 7.25, "3", True, None]
USERS = [f"u{number}" for number in range(3)]
DEVICES = [f"d{number}" for number in range(5)]


@dataclass
class Model:
    """What was sent, and what it comes to by the graph as it is."""

    events: list[Event] = field(default_factory=list)

    async def expected(self, stub: IdentityServiceStub) -> dict[str, dict[str, Any]]:
        """The values of every person."""
        owners = {}
        for kind, names in (("user_id", USERS), ("anonymous_id", DEVICES)):
            for name in names:
                profile = await profile_of(stub, f"{kind}:{name}")
                owners[kind, name] = None if profile is None else profile.profile_id
        people: dict[str, list[tuple[int, str, Any]]] = defaultdict(list)
        for event in {event.message_id: event for event in self.events}.values():
            owner = owners.get(("user_id", event.user_id)) or owners.get(("anonymous_id", event.anonymous_id))
            assert owner is not None
            total = json.loads(event.properties, parse_float=Decimal)["total"]
            people[owner].append((event.event_time.ToMicroseconds(), event.message_id, total))
        return {owner: naive(rows) for owner, rows in people.items()}


def naive(rows: Sequence[tuple[int, str, Any]]) -> dict[str, Any]:
    """The values of one person, as plainly as can be."""
    rows = sorted(rows, key=lambda row: row[:2])
    numbers = [Decimal(total) for _, _, total in rows if type(total) in (int, Decimal)]
    texts = [text(total) for _, _, total in rows if total is not None]
    most = max(Counter(texts).values(), default=0)
    lately = sum(time_us >= (NOW - timedelta(days=1)).timestamp() * 1_000_000 for time_us, _, _ in rows)
    found = {"orders": len(rows), "lately": lately, "large": sum(number > 1 for number in numbers)}
    if numbers:
        found |= {"sum": sum(numbers), "max": max(numbers), "min": min(numbers)}
    if texts:
        found |= {"first": texts[0], "last": texts[-1], "most_frequent": min(t for t, n in Counter(texts).items() if n == most)}
        found |= {"unique_list": sorted(set(texts)), "unique_count": len(set(texts))}
    return {name: value for name, value in found.items() if value != 0 or name in ("sum", "max", "min")}


def text(value: Any) -> str:
    if type(value) in (int, Decimal):
        return f"{Decimal(value).normalize():f}"
    return json.dumps(value)


async def found(stub: ComputedTraitsServiceStub, profile_id: str) -> dict[str, Any]:
    """The values of a person in the model's terms."""
    known = await values(stub, profile_id)
    for name in ("sum", "max", "min"):
        if name in known:
            known[name] = Decimal(known[name])
    for name in ("first", "last", "most_frequent"):
        if name in known:
            known[name] = plain(known[name])
    if "unique_list" in known:
        known["unique_list"] = [plain(value) for value in known["unique_list"]]
    return known


def plain(value: Any) -> str:
    """A value of ``values``, where a broken number is its text and a text that looks like one does not occur."""
    return value if isinstance(value, str) and "." in value else json.dumps(value)


DEFINITIONS = [
    trait("orders"),
    trait("lately", window=timedelta(days=1)),
    trait("large", conditions=[condition("properties.total", "GREATER", 1)]),
    *(trait(kind.lower(), kind, "properties.total") for kind in ("SUM", "MAX", "MIN", "FIRST", "LAST")),
    *(trait(kind.lower(), kind, "properties.total") for kind in ("MOST_FREQUENT", "UNIQUE_LIST", "UNIQUE_COUNT")),
]


@pytest.fixture
async def stubs(identity: ServiceProcess, client: Client) -> AsyncIterator[tuple[IdentityServiceStub, ComputedTraitsServiceStub]]:
    async with grpc.aio.insecure_channel(identity.grpc) as channel:
        yield client(identity), ComputedTraitsServiceStub(channel)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_events_merges_and_splits_in_any_order(
    seed: int, stubs: tuple[IdentityServiceStub, ComputedTraitsServiceStub], bus: Bus
) -> None:
    graph, computed = stubs
    chance, model = random.Random(seed), Model()
    await apply(computed, *DEFINITIONS)
    await reading(bus)
    for _ in range(12):
        match chance.choice(["events", "events", "events", "merge", "undo", "take"]):
            case "events":
                await counted(bus, await events(graph, chance, model), partition=chance.randrange(8))
            case "merge":
                pair = [
                    profile.profile_id for name in chance.sample(DEVICES, 2) if (profile := await profile_of(graph, f"anonymous_id:{name}"))
                ]
                if len(pair) == 2:
                    request = MergeProfilesRequest(
                        workspace_id=WORKSPACE, request_id=message_id(), profile_id=pair[0], other_profile_id=pair[1]
                    )
                    await graph.MergeProfiles(request, timeout=20)
            case part:
                await split(graph, chance, part)
        expected = await model.expected(graph)
        assert {owner: await found(computed, owner) for owner in expected} == expected


async def events(graph: IdentityServiceStub, chance: random.Random, model: Model) -> list[Event]:
    """Some new events, resolved as enrichment does it, and some that were there before."""
    fresh = []
    for _ in range(chance.randrange(1, 6)):
        user, device = chance.choice([*USERS, "", ""]), chance.choice(DEVICES)
        keys = [f"anonymous_id:{device}", *([f"user_id:{user}"] if user else [])]
        [resolved] = await resolve(graph, seen(*keys))
        at = NOW - timedelta(hours=chance.choice([1, 2, 3, 30, 40]))
        event = order(resolved.profile_id, user_id=user, anonymous_id=device, at=at, properties={"total": chance.choice(TOTALS)})
        event.identity.demoted_identifier_types.extend(item.type for item in resolved.demoted_identifiers)
        if "anonymous_id" not in event.identity.demoted_identifier_types:
            fresh.append(event)
    again = chance.sample(model.events, min(len(model.events), 3))
    model.events += fresh
    return [*again, *fresh, *fresh[:1]]


async def split(graph: IdentityServiceStub, chance: random.Random, part: str) -> None:
    profile = await profile_of(graph, f"anonymous_id:{chance.choice(DEVICES)}")
    if profile is None:
        return
    request = SplitProfileRequest(workspace_id=WORKSPACE, request_id=message_id(), profile_id=profile.profile_id)
    if part == "undo" and profile.merged_profile_ids:
        request.merged_profile_id = chance.choice(profile.merged_profile_ids)
    elif part == "take" and len(profile.identifiers) > 1:
        request.identifiers.identifiers.append(chance.choice(profile.identifiers))
    else:
        return
    await graph.SplitProfile(request, timeout=20)


async def test_a_replica_that_is_killed_in_the_middle_costs_nothing(
    start_service: StartService, migrated_database: MigratedDatabases, client: Client, bus: Bus
) -> None:
    environment = {"CDI_DATABASE_URL": migrated_database("identity")}
    first = start_service("identity", environment, name="identity-1")
    second = start_service("identity", environment, name="identity-2")
    people = [(await resolve(client(second), seen(f"user_id:u{number}")))[0].profile_id for number in range(5)]
    async with grpc.aio.insecure_channel(second.grpc) as channel:
        computed = ComputedTraitsServiceStub(channel)
        await apply(computed, trait("orders"), trait("value", "SUM", "properties.total"))
        await reading(bus)

        async def send(partition: int) -> int:
            for _ in range(30):
                batch = [order(person, 0.1, user_id=f"u{number}") for number, person in enumerate(people) for _ in range(8)]
                last = await publish(bus, [*batch, *batch[:5]], partition)
            return last

        sending = asyncio.gather(*(send(partition) for partition in range(8)))
        await eventually(lambda: some(computed, people[0]))
        first.kill()
        for partition, last in enumerate(await sending):
            await caught_up(bus, last, partition)
        for person in people:
            assert await values(computed, person) == {"orders": 8 * 30 * 8, "value": 192}
        assert (await states(computed))["orders"].fill_error


async def some(computed: ComputedTraitsServiceStub, profile_id: str) -> bool:
    return bool(await values(computed, profile_id))
