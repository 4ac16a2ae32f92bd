"""Erasing people from the graph: everything of theirs, nothing of others, twice, killed in the middle; and what access hands out."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import grpc
import pytest

from cdi.consent.v1.privacy_pb2 import PRIVACY_VERB_ACCESS
from cdi.event.v1 import event_pb2
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_runtime import rpc
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from cdi_testing.plugin import MigratedDatabases, StartService
from tests.component.identity import computed_calls
from tests.component.identity.conftest import Client
from tests.component.identity.identity_calls import names, profile_of, resolve, seen, told
from tests.component.identity.profile_calls import Watching
from tests.component.privacy_side import PrivacySide, order, privacy_side, tell

TOKEN = "planted-91bc"
HER = (("user_id", f"{TOKEN}-user"), ("anonymous_id", f"{TOKEN}-device"), ("email", f"{TOKEN}@example.com"))
SERVICE = "identity"


@pytest.fixture
async def side() -> AsyncIterator[tuple[PrivacySide, str]]:
    async with privacy_side() as made:
        yield made


@pytest.fixture
def database(migrated_database: MigratedDatabases) -> str:
    return migrated_database("identity")


@pytest.fixture
def identity(start_service: StartService, side: tuple[PrivacySide, str], database: str) -> ServiceProcess:
    return start_service("identity", {"CDI_CONSENT_TARGET": side[1], "CDI_DATABASE_URL": database})


async def planted(database: str) -> list[str]:
    """Tables that hold the token, in whatever form."""
    connection = await asyncpg.connect(database)
    try:
        tables = await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        found = []
        for (table,) in tables:
            if await connection.fetchval(
                f"SELECT count(*) FROM {table} t WHERE position('{TOKEN}' IN encode(t::text::bytea, 'escape')) > 0"
            ):
                found.append(table)
            columns = await connection.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND data_type = 'bytea'", table
            )
            for (column,) in columns:
                if await connection.fetchval(f"SELECT count(*) FROM {table} WHERE position('{TOKEN}'::bytea IN {column}) > 0"):
                    found.append(f"{table}.{column}")
        return found
    finally:
        await connection.close()


async def live(stub, number: int = 0) -> Sequence[str]:
    """Two profiles of hers that become one, and somebody else's; the ids of hers."""
    first = await resolve(
        stub, seen(f"anonymous_id:{HER[1][1]}", traits=b'{"plan": "%b"}' % TOKEN.encode(), message_id=f"{TOKEN}-1-{number}")
    )
    second = await resolve(stub, seen(f"user_id:{HER[0][1]}", f"email:{HER[2][1]}", traits=b'{"name": "%b"}' % TOKEN.encode(), second=1))
    await resolve(stub, seen(f"anonymous_id:{HER[1][1]}", f"user_id:{HER[0][1]}"))
    await resolve(stub, seen("user_id:other", "email:other@example.com", traits=b'{"name": "Other"}'))
    # What is left out of an event is told in the decision about whoever else the event is of.
    await resolve(stub, seen("user_id:other", f"email:{HER[2][1]}"))
    return [first[0].profile_id, second[0].profile_id]


async def test_all_of_her_goes_and_nobody_else(
    identity: ServiceProcess, client: Client, database: str, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    consent, _ = side
    stub = client(identity)
    async with rpc.channel(identity.grpc) as channel:
        await computed_calls.apply(ComputedTraitsServiceStub(channel), computed_calls.trait("top", "MOST_FREQUENT", "properties.product"))
        profiles = await live(stub)
        bought = event_pb2.IdentityResult(profile_id=profiles[0])
        event = builders.track("Order Completed", user_id=HER[0][1], properties={"product": TOKEN}, identity=bought)
        await computed_calls.reading(bus)
        await computed_calls.counted(bus, [event])
        await eventually(lambda: _has(database, "SELECT count(*) FROM computed_values", 1))
        asked = order(SERVICE, *HER, profiles=profiles, verb=PRIVACY_VERB_ACCESS)
        await tell(bus, asked)
        await consent.reported(asked, SERVICE)
        held = consent.holdings[asked.request_id, SERVICE]
        assert {(row["type"], row["value"]) for row in held["identifiers"]} == set(HER)
        assert {(row["name"], row["value"]) for row in held["traits"]} == {("plan", TOKEN), ("name", TOKEN)}
        assert {(row["name"], row["value"]) for row in held["computed_traits"]} == {("top", f'"{TOKEN}"')}
        assert len(held["profiles"]) == 2
        assert len(held["merges"]) == 1
        assert held["decisions"]

        erasing = order(SERVICE, *HER, profiles=profiles)
        await tell(bus, erasing)
        steps = await consent.reported(erasing, SERVICE)
        assert (steps["profiles"].count, steps["identifiers"].count, steps["computed_values"].count) == (2, 3, 1)
        await eventually(lambda: _has(database, "SELECT count(*) FROM outbox", 0))
        assert await planted(database) == []
        assert await profile_of(stub, f"user_id:{HER[0][1]}") is None
        other = await profile_of(stub, "user_id:other")
        assert other is not None
        assert {item.value for item in other.identifiers} == {"other", "other@example.com"}

        # A replay of ENRICHED counts nothing: her old profile is not in the graph, be she back or not.
        back = await resolve(stub, seen(f"user_id:{HER[0][1]}"))
        assert back[0].profile_id not in profiles
        event.message_id = "again"
        others = event_pb2.IdentityResult(profile_id=other.profile_id)
        bought = builders.track("Order Completed", user_id="other", properties={"product": "kept"}, identity=others)
        await computed_calls.counted(bus, [event, bought])
        assert await _has(database, "SELECT string_agg(value, ',') FROM computed_values", '"kept"')


async def test_the_second_look_finds_what_a_batch_under_way_brought_back(
    identity: ServiceProcess, client: Client, database: str, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    consent, _ = side
    stub = client(identity)
    profiles = await live(stub)
    first = order(SERVICE, *HER, profiles=profiles)
    await tell(bus, first)
    await consent.reported(first, SERVICE)
    await resolve(stub, seen(f"user_id:{HER[0][1]}", "user_id:unrelated", traits=b'{"name": "%b"}' % TOKEN.encode()))
    second = order(SERVICE, *HER, profiles=profiles, request_id=first.request_id, attempt=2, at=first.order_time.ToDatetime())
    await tell(bus, second)
    assert (await consent.reported(second, SERVICE))["profiles"].count == 1
    assert await planted(database) == []
    third = order(SERVICE, *HER, profiles=profiles, request_id=first.request_id, attempt=3, at=first.order_time.ToDatetime())
    await tell(bus, third)
    assert {name: step.count for name, step in (await consent.reported(third, SERVICE)).items()} == {"profiles": 0}


async def test_what_consent_judged_before_an_erasure_changes_nothing_any_more(
    identity: ServiceProcess, client: Client, database: str, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    """A batch that was under way comes after the erasure, whoever is in it: it has to be judged again."""
    consent, _ = side
    stub = client(identity)
    mine = await resolve(stub, seen(f"user_id:{HER[0][1]}"))
    await resolve(stub, seen("user_id:known"))
    erasing = order(SERVICE, *HER, profiles=[mine[0].profile_id], tombstone_generation=7)
    await tell(bus, erasing)
    await consent.reported(erasing, SERVICE)
    late = seen(f"user_id:{HER[0][1]}", traits=b'{"name": "%b"}' % TOKEN.encode())
    for judged in (0, 6):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await resolve(stub, seen("user_id:new"), late, judged=judged)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await planted(database) == []
    assert await profile_of(stub, "user_id:new") is None
    # What changes nothing may be as old as it likes; another workspace has erased nobody.
    assert await resolve(stub, seen("user_id:known"), judged=6)
    assert await resolve(stub, seen("user_id:new", workspace="elsewhere"), judged=6)
    assert await resolve(stub, seen("user_id:new"), judged=7)
    # Consent restored from a backup counts from where it was: after an hour nothing is under way any more.
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("UPDATE workspaces SET erase_time = erase_time - interval '61 minutes'")
    finally:
        await connection.close()
    assert await resolve(stub, seen("user_id:newer"), judged=1)


async def test_whoever_took_an_identifier_over_loses_no_more_than_it(
    identity: ServiceProcess, client: Client, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    """The order names her profile; her device's id is somebody else's since."""
    consent, _ = side
    stub = client(identity)
    await resolve(stub, seen("user_id:other", f"anonymous_id:{HER[1][1]}"))
    mine = await resolve(stub, seen(f"user_id:{HER[0][1]}"))
    erasing = order(SERVICE, *HER, profiles=[mine[0].profile_id])
    await tell(bus, erasing)
    await consent.reported(erasing, SERVICE)
    other = await profile_of(stub, "user_id:other")
    assert other is not None
    assert [item.value for item in other.identifiers] == ["other"]


async def test_who_watches_hears_of_the_erasure_and_the_stream_tells_nothing_of_her(
    identity: ServiceProcess, client: Client, bus: Bus, side: tuple[PrivacySide, str], watching: Watching
) -> None:
    consent, _ = side
    stub = client(identity)
    mine, other = await resolve(stub, seen(f"user_id:{HER[0][1]}", traits=b'{"n":1}'), seen("user_id:other", f"anonymous_id:{HER[1][1]}"))
    hers, theirs = watching(identity, mine.profile_id), watching(identity, "user_id:other")
    await eventually(lambda: hers.told and theirs.told)
    before = len(await told(bus))
    erasing = order(SERVICE, *HER, profiles=[mine.profile_id])
    await tell(bus, erasing)
    await consent.reported(erasing, SERVICE)
    # A watched profile is read every minute in any case.
    await eventually(lambda: hers.code == "NOT_FOUND" and names(theirs.told[-1]) == {"user_id:other"})
    [change] = (await told(bus))[before:]
    assert set(change.reread_profile_ids) == {mine.profile_id, other.profile_id}
    assert TOKEN not in str(change)
    await tell(bus, order(SERVICE, *HER, profiles=[mine.profile_id], request_id=erasing.request_id, attempt=2))
    await eventually(lambda: len(consent.reports) == 2)
    assert len(await told(bus)) == before + 1


async def test_killed_in_the_middle_it_goes_on(
    identity: ServiceProcess, client: Client, database: str, bus: Bus, side: tuple[PrivacySide, str]
) -> None:
    consent, _ = side
    stub = client(identity)
    people = [f"{TOKEN}-{number}" for number in range(200)]
    await resolve(stub, *(seen(f"user_id:{person}") for person in people))
    orders = [order(SERVICE, ("user_id", person)) for person in people]
    consent.away = True
    await tell(bus, *orders)
    await eventually(lambda: consent.calls > 0)
    identity.kill()
    consent.away = False
    await asyncio.to_thread(identity.start)
    for each in orders:
        await consent.reported(each, SERVICE)
    assert await planted(database) == []


async def _has(database: str, sql: str, wanted: object) -> bool:
    connection = await asyncpg.connect(database)
    try:
        return bool(await connection.fetchval(sql) == wanted)
    finally:
        await connection.close()
