"""Identity with several replicas, many callers at once, crashes, and a database that goes away."""

import asyncio
import http.client
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import asyncpg
import grpc

from cdi.identity.v1.identity_service_pb2 import IdentityInput, ResolvedIdentity, SplitProfileRequest
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import CanonicalChange
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_runtime.bus import Bus
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import StartService

from .conftest import Client
from .identity_calls import GraphAsTold, names, profile_of, published, resolve, seen, told

Replicas = tuple[ServiceProcess, ServiceProcess]

SEED = 20_260_115
KINDS = ("user_id", "anonymous_id")


async def test_concurrent_batches_over_two_replicas_end_as_one_sequence_would(replicas: Replicas, client: Client, bus: Bus) -> None:
    chance = random.Random(SEED)
    groups = [chance.sample(person(number), chance.choice((1, 1, 2, 3))) for number in range(40) for _ in range(25)]
    groups += [person(number)[:2] for number in range(40)]
    chance.shuffle(groups)
    workspaces = ("acme", "globex")
    inputs = [seen(*group, workspace=workspace) for group in groups for workspace in workspaces]
    stubs = [client(replica) for replica in replicas for _ in range(4)]
    created = await by_many(stubs, inputs)

    left = 0
    for workspace in workspaces:
        found = {}
        for name in {name for group in groups for name in group}:
            profile = await profile_of(stubs[0], name, workspace)
            assert profile is not None
            found[profile.profile_id] = names(profile)
        assert set(found.values()) == components(groups)
        assert sum(map(len, found.values())) == len(frozenset().union(*found.values()))
        left += len(found)
    assert created >= left
    assert await all_published(bus, replicas[0])
    graph = GraphAsTold(await told(bus))
    for workspace in workspaces:
        people = graph.people(workspace)
        assert set(people.values()) == components(groups)
        for canonical, identifiers in people.items():
            profile = await profile_of(stubs[1], min(identifiers), workspace)
            assert profile is not None
            assert profile.profile_id == canonical
            assert {merged for merged, owner in graph.canonical.items() if owner == canonical} == {canonical, *profile.merged_profile_ids}


async def test_limits_hold_when_many_want_the_same_identifiers(replicas: Replicas, client: Client) -> None:
    chance = random.Random(SEED)
    users, devices = [f"user_id:u{n}" for n in range(12)], [f"anonymous_id:d{n}" for n in range(30)]
    inputs = [seen(chance.choice(users), *chance.sample(devices, 2)) for _ in range(1_500)]
    inputs += [seen(*chance.sample(devices, 3)) for _ in range(500)]
    chance.shuffle(inputs)
    await by_many([client(replica) for replica in replicas for _ in range(4)], inputs)
    stub, people = client(replicas[0]), {}
    for name in users + devices:
        profile = await profile_of(stub, name)
        if profile is not None:
            people[profile.profile_id] = names(profile)
    assert sum(name in group for name in users for group in people.values()) == len(users)
    for group in people.values():
        kinds = [name.partition(":")[0] for name in group]
        assert kinds.count("user_id") <= 1
        assert kinds.count("anonymous_id") <= 5


async def test_a_kill_between_commit_and_publish_loses_no_merge(
    start_service: StartService, client: Client, fresh_nats: NatsServer, bus: Bus
) -> None:
    identity = start_service("identity")
    stub = client(identity)
    fresh_nats.stop()
    made = await resolve(stub, *(seen(f"anonymous_id:{number}x") for number in range(60)))
    merging = [resolve(stub, seen(f"anonymous_id:{number}x", f"anonymous_id:{number + 30}x")) for number in range(30)]
    await asyncio.gather(*merging)
    identity.kill()
    fresh_nats.start()
    identity.start()
    merges = await eventually(lambda: published(bus, 30))
    assert {merge.profile_id: merge.canonical_profile_id for merge in merges} == {
        later.profile_id: first.profile_id for first, later in zip(made, made[30:], strict=False)
    }
    [again] = await resolve(client(identity), seen("anonymous_id:31x"))
    assert again.profile_id == made[1].profile_id


async def test_a_replica_killed_under_load_holds_nobody_up(replicas: Replicas, client: Client, bus: Bus) -> None:
    doomed, living = replicas
    stubs = [client(living), client(doomed)]
    groups = [person(number)[:1] for number in range(300)] + [person(number)[1:2] for number in range(300)]
    groups += [person(number)[:2] for number in range(300)]
    inputs = [seen(*group) for group in groups]
    batches = [inputs[start : start + 20] for start in range(0, len(inputs), 20)]
    work = asyncio.gather(*(insistent(stubs, batch) for batch in batches))
    await eventually(lambda: profile_of(stubs[0], "anonymous_id:a0-0x"))
    doomed.kill()
    await work
    found = {}
    for group in groups:
        profile = await profile_of(stubs[0], group[0])
        assert profile is not None
        found[profile.profile_id] = names(profile)
    assert set(found.values()) == components(groups)
    await all_published(bus, living)
    graph = GraphAsTold(await told(bus))
    assert graph.people() == found


async def test_a_replica_killed_while_profiles_are_split_leaves_none_half_split(replicas: Replicas, client: Client, bus: Bus) -> None:
    doomed, living = replicas
    stubs = [client(living), client(doomed)]
    traits = b'{"plan":"pro"}'
    inputs = [item for n in range(40) for item in (seen(f"user_id:u{n}x"), seen(f"anonymous_id:a{n}x", traits=traits))]
    made = await resolve(stubs[0], *inputs)
    await resolve(stubs[0], *(seen(f"user_id:u{n}x", f"anonymous_id:a{n}x") for n in range(40)))
    work = asyncio.gather(*(split_insistently(stubs, merged.profile_id) for merged in made[1::2]))
    await eventually(lambda: separated(living, 3))
    doomed.kill()
    await work
    assert await separated(living, 40)
    people = {
        item.profile_id: frozenset({f"{kind}:{kind[0]}{n}x"}) for n in range(40) for item, kind in zip(made[2 * n :], KINDS, strict=False)
    }
    for profile_id, identifiers in people.items():
        profile = await profile_of(stubs[0], profile_id)
        assert profile is not None
        assert (profile.profile_id, names(profile)) == (profile_id, identifiers)
        assert bool(profile.traits != b"{}") == ("anonymous_id" in min(identifiers))

    async def told_in_full() -> bool:
        return GraphAsTold(await told(bus)).people() == people

    await eventually(told_in_full)


async def test_without_postgres_it_is_unavailable_and_then_recovers(
    start_service: StartService, client: Client, tmp_path: Path, fresh_nats: NatsServer
) -> None:
    with PostgresServer(tmp_path / "postgres", durable=False) as postgres:
        identity = start_service("identity", {"CDI_DATABASE_URL": postgres.create_database("identity")}, migrate=True)
        stub = client(identity)
        [before] = await resolve(stub, seen("user_id:u"))
        await eventually(lambda: ready(identity))
        postgres.stop()
        assert [await patient(stub, seen("user_id:u")) for _ in range(3)] == [[], [], []]
        await eventually(lambda: not ready(identity))
        postgres.start()
        again = await eventually(lambda: patient(stub, seen("user_id:u")))
        assert again[0].profile_id == before.profile_id
        for number in range(10):
            await resolve(stub, seen(f"user_id:after-{number}"))
        await eventually(lambda: ready(identity))
        identity.stop()


def person(number: int) -> list[str]:
    """Ten identifiers within the limits of one profile."""
    return [
        f"user_id:u{number}x",
        *(f"anonymous_id:a{number}-{index}x" for index in range(5)),
        *(f"email:e{number}-{index}@example.com" for index in range(4)),
    ]


def components(groups: Iterable[Sequence[str]]) -> set[frozenset[str]]:
    """The people that any order of these events must end with."""
    owner: dict[str, set[str]] = {}
    for group in groups:
        joined = set().union(*(owner.get(name, {name}) for name in group))
        owner |= dict.fromkeys(joined, joined)
    return set(map(frozenset, owner.values()))


async def by_many(stubs: Sequence[IdentityServiceStub], inputs: Sequence[IdentityInput]) -> int:
    """Resolves all inputs in batches of many sizes, by all stubs at once, each batch twice.

    Returns:
        How many profiles were said to be made.
    """
    sizes = random.Random(SEED)
    batches = []
    start = 0
    while start < len(inputs):
        size = sizes.randint(1, 60)
        batches.append(inputs[start : start + size])
        start += size
    lanes = [batches[lane :: len(stubs)] for lane in range(len(stubs))]

    async def lane(stub: IdentityServiceStub, mine: Sequence[Sequence[IdentityInput]]) -> int:
        made = 0
        for batch in mine:
            answers = await asyncio.gather(resolve(stub, *batch), resolve(stub, *batch))
            assert all(len(answer) == len(batch) and all(item.profile_id for item in answer) for answer in answers)
            made += sum(item.created for answer in answers for item in answer)
        return made

    return sum(await asyncio.gather(*(lane(stub, mine) for stub, mine in zip(stubs, lanes, strict=True))))


async def logged(identity: ServiceProcess) -> list[tuple[str, str]]:
    """Canonical and merged profile of every merge that was committed, in order."""
    connection = await asyncpg.connect(identity.environment["CDI_DATABASE_URL"])
    try:
        rows = await connection.fetch("SELECT canonical_profile_id::text, merged_profile_id::text FROM merges ORDER BY merge_id")
    finally:
        await connection.close()
    return [(row[0], row[1]) for row in rows]


async def all_published(bus: Bus, identity: ServiceProcess) -> list[CanonicalChange]:
    """The merges on the stream, once they are exactly those that were committed."""
    committed = await logged(identity)
    merges = await eventually(lambda: published(bus, len(committed)))
    assert sorted((merge.canonical_profile_id, merge.profile_id) for merge in merges) == sorted(committed)
    return merges


async def insistent(stubs: Sequence[IdentityServiceStub], batch: Sequence[IdentityInput]) -> None:
    """A caller that asks again until it has an answer."""
    for attempt in range(100):
        if await patient(stubs[attempt % 2], *batch):
            return
    raise AssertionError("no answer after 100 attempts")


async def patient(stub: IdentityServiceStub, *inputs: IdentityInput) -> Sequence[ResolvedIdentity]:
    """The answer, or nothing while the service is unavailable."""
    try:
        return await resolve(stub, *inputs)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return []
        raise


async def split_insistently(stubs: Sequence[IdentityServiceStub], merged_id: str) -> None:
    """An operator's program that asks again, by the same request, until it has an answer."""
    request = SplitProfileRequest(
        workspace_id=WORKSPACE, profile_id=merged_id, merged_profile_id=merged_id, request_id=f"split-{merged_id}"
    )
    for attempt in range(100):
        try:
            await stubs[attempt % 2].SplitProfile(request, timeout=20)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        else:
            return
    raise AssertionError("no answer after 100 attempts")


async def separated(identity: ServiceProcess, count: int) -> bool:
    """Whether so many splits were committed, each with one decision."""
    connection = await asyncpg.connect(identity.environment["CDI_DATABASE_URL"])
    try:
        splits = await connection.fetchval("SELECT coalesce(sum(splits), 0) FROM workspaces")
        decisions = await connection.fetchval("SELECT count(*) FROM decisions WHERE event_type = 'split_profile'")
    finally:
        await connection.close()
    assert splits <= 40
    return bool(splits >= count and decisions >= count and (splits < 40 or decisions == splits))


def ready(service: ServiceProcess) -> bool:
    """What ``/readyz`` says."""
    connection = http.client.HTTPConnection(service.ops, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()
