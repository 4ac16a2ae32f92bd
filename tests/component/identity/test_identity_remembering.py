"""Replicas remember known people: what one of them merges, splits or erases, the other one answers at once."""

import asyncpg

from cdi.identity.v1.identity_service_pb2 import MergeProfilesRequest, SplitProfileRequest
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_identity import convert
from cdi_identity.application import Identities
from cdi_identity.domain.identifiers import usable
from cdi_identity.ports_persons import Person
from cdi_identity.ruling import RuleBook
from cdi_identity.store.erasing import PostgresPersons
from cdi_identity.store.graph import PostgresGraph, indexed_only
from cdi_identity.store.lookups import MAX_MERGES
from cdi_runtime.store import Database, Readers
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import MigratedDatabases

from .conftest import Client
from .identity_calls import identifier, resolve, seen

ANN = ("user_id:ann", "anonymous_id:1")
BOB = ("user_id:bob", "anonymous_id:2")


async def both(stub: IdentityServiceStub) -> list[str]:
    """Whose the events of the two are, by page views."""
    return [answer.profile_id for answer in await resolve(stub, seen(*ANN), seen(*BOB))]


async def test_what_another_replica_merges_and_splits_is_answered_at_once(
    replicas: tuple[ServiceProcess, ServiceProcess], client: Client
) -> None:
    one, other = map(client, replicas)
    ann, bob = await both(one)
    assert await both(one) == await both(other) == [ann, bob] != [ann, ann]
    merging = MergeProfilesRequest(workspace_id=WORKSPACE, profile_id=ann, other_profile_id=bob, request_id="m")
    await other.MergeProfiles(merging, timeout=10)
    assert await both(one) == await both(other) == [ann, ann]
    assert await both(one) == [ann, ann]
    undoing = SplitProfileRequest(workspace_id=WORKSPACE, profile_id=ann, merged_profile_id=bob, request_id="s")
    await other.SplitProfile(undoing, timeout=10)
    assert await both(one) == await both(other) == [ann, bob]


async def test_what_is_known_needs_no_identifier_of_the_table(migrated_database: MigratedDatabases) -> None:
    """And very many merges at once, and an erasure, end what is remembered."""
    url = migrated_database("identity")
    async with Database.connect(url) as database, Readers(database, 1) as readers:
        indexed_only(database)
        store = PostgresGraph(database, readers)
        identities, other = (Identities(store, RuleBook(), lambda: 1, lambda: None) for _ in range(2))

        async def whose(asked: Identities) -> str:
            [answer] = await asked.resolve(convert.Inputs([seen(*ANN)]))
            return answer.profile_id

        ann = await whose(identities)
        assert await whose(identities) == ann
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE identifiers SET value = 'hidden-' || value")
        assert await whose(identities) == ann
        await connection.execute("UPDATE identifiers SET value = replace(value, 'hidden-', '')")

        apart = [event for number in range(MAX_MERGES + 1) for event in (seen(f"phone:{number}a"), seen(f"email:{number}b@x.y"))]
        for inputs in (apart, [seen(f"phone:{number}a", f"email:{number}b@x.y") for number in range(MAX_MERGES + 1)]):
            await other.resolve(convert.Inputs(inputs))
        assert await connection.fetchval("SELECT count(*) FROM merges") == MAX_MERGES + 1
        assert await whose(identities) == await whose(identities) == ann

        await PostgresPersons(database).erase([Person(WORKSPACE, usable(WORKSPACE, map(identifier, ANN)), [ann], 0)], 1)
        again = await whose(identities)
        assert again != ann
        assert await whose(other) == await whose(identities) == again
        await connection.close()
