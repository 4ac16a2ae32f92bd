"""Claims and progress over real Postgres: uniqueness under concurrency, epochs, exact counts."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from cdi.event.v1.outcome_pb2 import OUTCOME_ACCEPTED, OUTCOME_REJECTED
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.ports import START, Advance, Position
from cdi_enrichment.store import ClaimStore, ProgressStore
from cdi_enrichment.store.claims import RecentClaims
from cdi_runtime.store import Database, StoreUnavailable
from cdi_testing.plugin import MigratedDatabases


@pytest.fixture
async def database(migrated_database: MigratedDatabases) -> AsyncIterator[Database]:
    async with Database.connect(migrated_database("enrichment")) as connected:
        yield connected


def keys(count: int, start: int = 0) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in range(start, start + count)]


def at(sequence: int, wanted: list[bytes]) -> dict[bytes, Place]:
    return {key: Place(sequence, position) for position, key in enumerate(wanted)}


async def age(database: Database) -> None:
    """Makes the newest epoch a day old."""
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE claim_epochs SET open_time = open_time - interval '24 hours'"))


async def test_the_first_claim_holds_and_the_same_place_finds_it_again(database: Database) -> None:
    store = ClaimStore(database)
    assert await store.claim(at(1, keys(5)), {1: 0}) == {}
    assert await store.claim(at(1, keys(5)), {1: 0}) == {}
    other = await store.claim(at(2, keys(8)), {2: 0})
    assert other == at(1, keys(5))
    # Another replica remembers nothing and finds the same.
    assert await ClaimStore(database).claim(at(2, keys(8)), {2: 0}) == other
    assert await ClaimStore(database).claim(at(1, keys(5)), {1: 0}) == {}


async def test_of_concurrent_claims_exactly_one_holds(database: Database) -> None:
    stores = [ClaimStore(database) for _ in range(4)]
    wanted = keys(300)
    orders = [wanted, wanted[::-1], wanted[150:] + wanted[:150], wanted]
    foreign = await asyncio.gather(*(s.claim(at(n, order), {n: 0}) for n, (s, order) in enumerate(zip(stores, orders, strict=True), 1)))
    held = [key for n, answer in enumerate(foreign, 1) for key in wanted if key not in answer]
    assert sorted(held) == wanted


async def test_claims_outlive_the_next_epoch_and_not_the_one_after(database: Database) -> None:
    await ClaimStore(database).claim(at(1, keys(3)), {1: 7})
    assert not await ClaimStore(database).open_epoch_if_due()
    await age(database)
    assert await ClaimStore(database).open_epoch_if_due()
    assert not await ClaimStore(database).open_epoch_if_due()
    assert await ClaimStore(database).claim(at(2, keys(4)), {2: 7}) == at(1, keys(3))
    seen = await ClaimStore(database).find(keys(1)[0])
    assert seen is not None
    assert (seen.partition, seen.place) == (7, Place(1, 0))
    await age(database)
    assert await ClaimStore(database).open_epoch_if_due()
    assert await ClaimStore(database).claim(at(3, keys(4)), {3: 7}) == {keys(4)[3]: Place(2, 3)}
    async with database.transaction() as connection:
        tables = await connection.execute(text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'claims'::regclass"))
        assert tables.scalar_one() == 2


async def test_opening_an_epoch_while_others_claim_keeps_claims_unique(database: Database) -> None:
    await age(database)
    stores = [ClaimStore(database) for _ in range(3)]
    batches = [keys(100, start) for start in range(0, 1_000, 100)]

    async def claim(number: int, store: ClaimStore) -> list[bytes]:
        sequences = [number * 100 + i for i in range(len(batches))]
        answers = [await store.claim(at(s, batch), {s: 0}) for s, batch in zip(sequences, batches, strict=True)]
        return [key for batch, answer in zip(batches, answers, strict=True) for key in batch if key not in answer]

    *held, opened = await asyncio.gather(*(claim(n, s) for n, s in enumerate(stores, 1)), stores[0].open_epoch_if_due())
    assert opened
    assert sorted(key for part in held for key in part) == keys(1_000)


def test_recent_claims_forget_the_older_generation() -> None:
    recent = RecentClaims(2)
    for number in range(5):
        recent.remember(at(number, keys(2, number * 2)))
    assert set(recent.holders(keys(10))) == set(keys(4, 6))


async def test_counts_move_only_with_progress(database: Database) -> None:
    store = ProgressStore(database)
    first, second = Position(10, 1_000), Position(20, 2_000)
    await store.advance({0: Advance(START, first, {(OUTCOME_ACCEPTED, ""): 5}), 1: Advance(START, first, {(OUTCOME_ACCEPTED, ""): 1})})
    assert await store.read([0, 1, 2]) == {0: first, 1: first}
    # The same step again, and another replica's step from an older progress, count nothing at all.
    with pytest.raises(StoreUnavailable):
        await store.advance({0: Advance(START, first, {(OUTCOME_ACCEPTED, ""): 5})})
    with pytest.raises(StoreUnavailable):
        await store.advance({1: Advance(first, second, {(OUTCOME_ACCEPTED, ""): 9}), 0: Advance(START, second)})
    await store.advance({0: Advance(first, second, {(OUTCOME_ACCEPTED, ""): 2, (OUTCOME_REJECTED, "poison_event"): 1})})
    assert await store.read([0]) == {0: second}
    counts = [(count.outcome, count.reason, count.events) for count in await store.count_outcomes()]
    assert counts == [(OUTCOME_ACCEPTED, "", 8), (OUTCOME_REJECTED, "poison_event", 1)]


async def test_a_replica_that_missed_a_move_reads_again_after_its_own_has_failed(database: Database) -> None:
    store, other = ProgressStore(database), ProgressStore(database)
    first, second, third = (Position(sequence, sequence) for sequence in (1, 2, 3))
    await store.advance({0: Advance(START, first), 1: Advance(START, first)})
    await other.advance({0: Advance(first, second)})
    # What it has reached a moment ago it takes from memory, and advancing finds out.
    assert await store.read([0]) == {0: first}
    with pytest.raises(StoreUnavailable):
        await store.advance({0: Advance(first, third)})
    assert await store.read([0]) == {0: second}
    assert await store.read([0, 1]) == {0: second, 1: first}
    await store.advance({0: Advance(second, third)})
    assert await other.read([0, 1, 2]) == {0: third, 1: first}
