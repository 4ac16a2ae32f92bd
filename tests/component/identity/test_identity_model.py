"""Many clients at once on real Postgres, against the naive model run in the order of the commits."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg
import pytest

from cdi.identity.v1.identity_service_pb2 import IdentityInput
from cdi_identity import convert
from cdi_identity.application import Answers, Identities
from cdi_identity.clients.warehouse import NoWarehouse
from cdi_identity.domain.changes import Changes
from cdi_identity.domain.history import PROFILE_ID
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.resolution import Observation
from cdi_identity.domain.rules import Rules
from cdi_identity.operating import Operations, Request
from cdi_identity.ports import GraphWriter, Lookup
from cdi_identity.reading import Profiles
from cdi_identity.ruling import RuleBook
from cdi_identity.store.graph import PostgresGraph, indexed_only
from cdi_identity.store.profiles import PostgresProfiles
from cdi_kernel.faults import FailedPrecondition
from cdi_runtime.store import Database, Readers
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import MigratedDatabases

from .identity_calls import seen
from .naive_people import Naive, Name

SEED = 20_261_124
Entry = tuple[str, object]


class Logged(Identities):
    """Resolves, and writes down what it decides under the lock: the order of the entries is that of the commits."""

    journal: list[Entry]

    async def _decide(
        self, writer: GraphWriter, events: Sequence[tuple[int, Observation]], rules: Mapping[str, Rules], lookup: Lookup
    ) -> tuple[Answers, Changes]:
        self.journal.append(("events", [observation.identifiers for _, observation in events]))
        return await super()._decide(writer, events, rules, lookup)


class LoggedOperations(Operations):
    """Merges and splits, and writes it down."""

    journal: list[Entry]

    async def _merge(self, writer: GraphWriter, request: Request, profile_id: str, other_id: str) -> str:
        self.journal.append(("merge", (profile_id, other_id)))
        return await super()._merge(writer, request, profile_id, other_id)

    async def _split(self, writer: GraphWriter, request: Request, profile_id: str, part: str | Sequence[Identifier]) -> tuple[str, str]:
        result = await super()._split(writer, request, profile_id, part)
        self.journal.append(("split", (result[0], part)))
        return result


@pytest.fixture
def url(migrated_database: MigratedDatabases) -> str:
    return migrated_database("identity")


@pytest.fixture
async def databases(url: str) -> AsyncIterator[list[Database]]:
    """The pools of two replicas."""
    async with Database.connect(url, pool_size=8) as one, Database.connect(url, pool_size=8) as other:
        indexed_only(one)
        indexed_only(other)
        yield [one, other]


@pytest.fixture
async def readers(databases: list[Database]) -> AsyncIterator[list[Readers]]:
    async with Readers(databases[0], 2) as one, Readers(databases[1], 2) as other:
        yield [one, other]


async def test_concurrent_events_merges_and_splits_are_those_of_their_order(
    databases: list[Database], readers: list[Readers], url: str
) -> None:
    journal: list[Entry] = []
    clock = iter(range(1_800_000_000_000_000, 1_900_000_000_000_000))
    clients = []
    for number in range(8):
        store = PostgresGraph(databases[number % 2], readers[number % 2])
        profiles = Profiles(PostgresProfiles(readers[number % 2]), NoWarehouse(), lambda: next(clock))
        identities = Logged(store, RuleBook(), lambda: next(clock), lambda: None)
        operations = LoggedOperations(store, profiles, lambda: next(clock), lambda: None)
        identities.journal = operations.journal = journal
        clients.append(work(identities, operations, profiles, number))
    await asyncio.gather(*clients)

    connection = await asyncpg.connect(url)
    numbers = {row[0]: index for index, row in enumerate(await connection.fetch("SELECT profile_id::text FROM profiles ORDER BY ordinal"))}
    owners = {(row[0], row[1]): numbers[row[2]] for row in await connection.fetch("SELECT type, value, profile_id::text FROM identifiers")}
    canonical = {
        numbers[row[0]]: numbers[row[1]]
        for row in await connection.fetch("SELECT profile_id::text, coalesce(canonical_profile_id, profile_id)::text FROM profiles")
    }
    counted = {numbers[row[0]]: row[1] for row in await connection.fetch("SELECT profile_id::text, merges FROM profiles")}
    await connection.close()

    naive = replayed(journal, numbers)
    assert {"merge", "split"} <= {kind for kind, _ in journal}
    assert {profile: naive.person(profile) for profile in naive.parent} == canonical
    assert {name: naive.person(profile) for name, profile in naive.origin.items()} == owners
    assert {person: counted[person] for person in set(canonical.values())} == {
        person: len(naive.members(person)) - 1 for person in set(canonical.values())
    }


async def work(identities: Identities, operations: Operations, profiles: Profiles, client: int) -> None:
    """What one client does: batches of events of people whom others know too, and now and then a merge or a split."""
    chance = random.Random(SEED + client)
    known: list[str] = []
    for step in range(40):
        inputs = [event(chance) for _ in range(chance.randint(1, 12))]
        known += [answer.profile_id for answer in await identities.resolve(convert.Inputs(inputs))]
        request = Request(WORKSPACE, f"r{client}-{step}", "")
        if step % 4 == 0:
            await operations.merge(request, chance.choice(known), chance.choice(known))
        elif step % 2:
            profile = await profiles.one(WORKSPACE, (PROFILE_ID, chance.choice(known)))
            part: str | list[Identifier] = list(chance.sample(profile.identifiers, min(2, len(profile.identifiers))))
            if profile.merged_profile_ids and chance.random() < 0.6:
                part = chance.choice(profile.merged_profile_ids)
            try:
                await operations.split(request, profile.profile_id, part)
            except FailedPrecondition:
                continue  # another client was faster, or nothing would be left


def event(chance: random.Random) -> IdentityInput:
    kinds = (("user_id", 60), ("email", 80), ("anonymous_id", 120), ("phone", 40))
    return seen(*(f"{kind}:{chance.randrange(many)}x" for kind, many in chance.sample(kinds, chance.choice((1, 1, 2, 3)))))


def replayed(journal: Sequence[Entry], numbers: Mapping[str, int]) -> Naive:
    naive = Naive({"user_id": 1})
    for kind, content in journal:
        match kind, content:
            case "events", list(events):
                for identifiers in events:
                    naive.event([name(identifier) for identifier in identifiers])
            case "merge", (str(one), str(other)):
                naive.merge(numbers[one], numbers[other])
            case "split", (str(), str(merged)):
                assert naive.undo(numbers[merged])
            case "split", (str(remaining), list(taken)):
                assert naive.take(numbers[remaining], [name(identifier) for identifier in taken])
    return naive


def name(identifier: Identifier) -> Name:
    return identifier[1], identifier[2]
