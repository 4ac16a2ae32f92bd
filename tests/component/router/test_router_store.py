"""One conformance suite for the store of deliveries and its twin in memory."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from cdi_router.domain.answer import Answer
from cdi_router.domain.delivery import Barrier, Delivery, Progress, Refusal, Settlement, Withheld
from cdi_router.domain.person import person_of
from cdi_router.domain.trials import Trials
from cdi_router.ports import DeliveryStore, Standing
from cdi_router.store.deliveries import PostgresDeliveries
from cdi_router.store.memory import MemoryDeliveries
from cdi_runtime.store import Database
from cdi_testing import builders

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[DeliveryStore]:
    if request.param == "memory":
        yield MemoryDeliveries()
        return
    url = request.getfixturevalue("migrated_database")("router")
    async with Database.connect(url) as database:
        yield PostgresDeliveries(database)


def delivery(user: str, sequence: int, position: int = 0) -> Delivery:
    event = builders.track(user_id=user)
    return Delivery(event, person_of(event), (sequence, position))


def parked(*deliveries: Delivery, alone: bool = True, due: datetime = NOW) -> Settlement:
    barriers = [Barrier(person, Trials(due), alone) for person in dict.fromkeys(waiting.person for waiting in deliveries)]
    return Settlement(parked=list(deliveries), barriers=barriers, first_sequence=1)


async def test_progress_is_compared_and_set(store: DeliveryStore) -> None:
    assert await store.standing(1, 0) == Standing(Progress(), frozenset())
    assert await store.settle(1, 0, Progress(), Progress(5, 3), Settlement())
    assert not await store.settle(1, 0, Progress(), Progress(6, 4), parked(delivery("a", 6)))
    assert await store.standing(1, 0) == Standing(Progress(5, 3), frozenset())
    # Another partition, and another destination, stand where they stood.
    assert (await store.standing(1, 1)).progress == (await store.standing(2, 0)).progress == Progress()


async def test_people_wait_in_order_and_are_barred_until_their_last_event_is_gone(store: DeliveryStore) -> None:
    first, second, third, other = delivery("a", 1), delivery("a", 1, 1), delivery("a", 2), delivery("b", 2, 1)
    await store.standing(1, 0)
    await store.settle(1, 0, Progress(), Progress(2, 2), parked(third, other, first, second))
    assert (await store.standing(1, 0)).barred == {first.person, other.person}
    assert await store.due(1, [0, 1], NOW) == [0]
    assert await store.due(1, [0], NOW - timedelta(seconds=1)) == []

    queues = {queue.barrier.person: queue for queue in await store.queues(1, 0, NOW, people=10, events=10)}
    assert [waiting.key for waiting in queues[first.person].deliveries] == [first.key]
    await store.settle_parked(1, 0, NOW, Settlement(delivered=[first, other]), [first.person, other.person])
    assert (await store.standing(1, 0)).barred == {first.person}
    [queue] = await store.queues(1, 0, NOW, people=10, events=10)
    assert [waiting.key for waiting in queue.deliveries] == [second.key, third.key]
    assert not queue.barrier.alone
    assert [waiting.event.message_id for waiting in queue.deliveries] == [second.event.message_id, third.event.message_id]

    await store.settle_parked(1, 0, NOW, Settlement(filtered=[(second, "x")], withheld=[Withheld(third, ("ads",))]), [])
    assert (await store.standing(1, 0)).barred == frozenset()


async def test_a_failure_moves_the_barrier(store: DeliveryStore) -> None:
    waiting = delivery("a", 1)
    await store.standing(1, 0)
    await store.settle(1, 0, Progress(), Progress(1, 1), parked(waiting))
    later = NOW + timedelta(seconds=10)
    again = Barrier(waiting.person, Trials(later, 2, 1, NOW, Answer(429, failure="")), alone=True)
    await store.settle_parked(1, 0, NOW, Settlement(barriers=[again]), [])
    assert await store.due(1, [0], NOW) == []
    [queue] = await store.queues(1, 0, later, people=1, events=1)
    assert queue.barrier.trials == again.trials


async def test_given_up_and_gone(store: DeliveryStore) -> None:
    waiting, behind = delivery("a", 1), delivery("a", 2)
    await store.standing(1, 0)
    await store.settle(1, 0, Progress(), Progress(2, 2), parked(waiting, behind))
    dead = Refusal(waiting, "retries_exhausted", Answer(500, "nul \0 and all"), b"{}", 3, NOW)
    settlement = Settlement(dead=[dead], barriers=[Barrier(waiting.person, Trials(NOW), alone=True)])
    await store.settle_parked(1, 0, NOW, settlement, [])
    [queue] = await store.queues(1, 0, NOW, people=1, events=10)
    assert ([left.key for left in queue.deliveries], queue.barrier.alone, queue.barrier.trials.attempts) == ([behind.key], True, 0)
    # Settled by somebody else meanwhile: no harm, and no barrier that nobody waits behind.
    await store.settle_parked(1, 0, NOW, Settlement(delivered=[behind]), [behind.person])
    await store.settle_parked(1, 0, NOW, Settlement(delivered=[behind], barriers=[queue.barrier]), [])
    assert (await store.standing(1, 0)).barred == frozenset()


async def test_the_barrier_of_one_who_waits_stays_as_it_is(store: DeliveryStore) -> None:
    waiting, behind = delivery("a", 1), delivery("a", 2)
    later = NOW + timedelta(minutes=5)
    await store.standing(1, 0)
    await store.settle(1, 0, Progress(), Progress(1, 1), parked(waiting, due=later))
    await store.settle(1, 0, Progress(1, 1), Progress(2, 2), parked(behind, alone=False, due=NOW))
    assert await store.due(1, [0], NOW) == []
