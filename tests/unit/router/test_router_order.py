"""Order per person, nothing lost, nobody forgotten: random failures, refusals, crashes and withdrawals against the real use cases."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event
from cdi_kernel.faults import Unavailable
from cdi_router.application.courier import Courier
from cdi_router.application.live import Arrival, Held, LiveDelivery
from cdi_router.application.target import Target
from cdi_router.application.waiting import WaitingDelivery
from cdi_router.domain.answer import Answer
from cdi_router.domain.breaker import Breaker
from cdi_router.domain.delivery import Settlement
from cdi_router.domain.destination import Destination, Webhook
from cdi_router.domain.filter import Filter
from cdi_router.domain.retry import RetryPolicy
from cdi_router.ports import Allowed, Subject
from cdi_router.store.memory import MemoryDeliveries
from cdi_testing import builders

POLICY = RetryPolicy(initial_seconds=10, max_seconds=40, give_up_after_seconds=10**9)


@dataclass
class Time:
    instant: datetime = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.instant

    def chance(self) -> float:
        return 0.0


@dataclass
class Receiver:
    """A destination that answers as it is told, after so many seconds; refuses events named poison."""

    max_batch_events: int
    concurrency: int
    time: Time = field(default_factory=Time)
    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    unanswered: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def compose(self, events: Sequence[Event]) -> bytes:
        return json.dumps([[event.message_id, event.name] for event in events]).encode()

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        self.requests += 1
        self.time.instant += timedelta(seconds=self.seconds)
        status = self.statuses.pop(0) if self.statuses else 200
        events = json.loads(body)
        if status == 200 and any(name == "poison" for _, name in events):
            status = 400
        if status in (200, 599):
            self.taken += [message_id for message_id, _ in events]
        # 599 stands for an answer that got lost: the destination took the events.
        if status == 599:
            self.unanswered.update(message_id for message_id, _ in events)
        return Answer(status)


@dataclass
class Everything:
    """Consent that allows all, or is away as often as it is told."""

    absences: list[bool]

    async def allowed(self, subjects: Sequence[Subject]) -> Mapping[Subject, Allowed]:
        if self.absences and self.absences.pop(0):
            raise Unavailable("consent", "away")
        return dict.fromkeys(subjects, Allowed(frozenset()))


@dataclass
class CrashingStore(MemoryDeliveries):
    """Fails instead of settling new events as often as it is told: what was sent is sent again."""

    crashes: list[bool]

    def __post_init__(self) -> None:
        super().__init__()

    async def settle(self, *arguments: object) -> bool:  # type: ignore[override]
        if self.crashes and self.crashes.pop(0):
            raise Unavailable("database", "gone")
        return await super().settle(*arguments)  # type: ignore[arg-type]


class Bench:
    def __init__(self, receiver: Receiver, crashes: Sequence[bool] = (), absences: Sequence[bool] = ()) -> None:
        self.time = receiver.time
        self.receiver = receiver
        store, consent = CrashingStore(list(crashes)), Everything(list(absences))
        destination = Destination("acme", "ads", Webhook("http://x/"), retry=POLICY)
        target = Target(1, destination, Filter(destination), Courier(receiver), Breaker(POLICY), self.time)
        self.live = LiveDelivery(target, store, consent)
        self.waiting = WaitingDelivery(target, store, consent)
        self.settlements: list[Settlement] = []

    async def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """As the engine does: again and again until the messages are settled, with the retry loop beside it."""
        while True:
            try:
                ended = await self.live.deliver(0, arrivals)
            except Unavailable:
                continue
            if not isinstance(ended, Held):
                self.settlements.append(ended)
                return
            await self.pass_time(ended.seconds)

    async def pass_time(self, seconds: float) -> None:
        self.time.instant += timedelta(seconds=seconds)
        for partition in await self.waiting.due([0]):
            try:
                settlement = await self.waiting.retry(partition)
            except Unavailable:
                continue
            if settlement is not None:
                self.settlements.append(settlement)

    async def finish(self, events: int) -> None:
        self.receiver.statuses.clear()
        for _ in range(50 + events * 3):
            await self.pass_time(50)

    def ended(self) -> list[str]:
        delivered = [delivery.event.message_id for settlement in self.settlements for delivery in settlement.delivered]
        return delivered + [refusal.delivery.event.message_id for settlement in self.settlements for refusal in settlement.dead]


def events_of(people: Sequence[int], poison: set[int]) -> list[Event]:
    return [
        builders.track("poison" if index in poison else "fine", user_id=f"person-{person}", message_id=f"{person}:{index}")
        for index, person in enumerate(people)
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    people=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    poison=st.sets(st.integers(0, 39), max_size=4),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    statuses=st.lists(st.sampled_from([200, 200, 503, 429, 500, 599, 0]), max_size=60),
    crashes=st.lists(st.booleans(), max_size=8),
    absences=st.lists(st.booleans(), max_size=20),
    seconds=st.sampled_from([0.0, 2.0]),
    max_batch=st.integers(1, 10),
    concurrency=st.integers(1, 4),
)
async def test_random_failures(
    people: list[int],
    poison: set[int],
    cuts: list[int],
    statuses: list[int],
    crashes: list[bool],
    absences: list[bool],
    seconds: float,
    max_batch: int,
    concurrency: int,
) -> None:
    events = events_of(people, poison)
    bench = Bench(Receiver(max_batch, concurrency, seconds=seconds, statuses=list(statuses)), crashes, absences)
    start, turn = 0, 0
    while start < len(events):
        size = cuts[turn % len(cuts)]
        await bench.arrive([Arrival(turn + 1, turn + 1, events[start : start + size])])
        await bench.pass_time(turn % 3 * 7)
        start, turn = start + size, turn + 1
    await bench.finish(len(events))

    # Every event ended exactly once, as it should.
    assert sorted(bench.ended()) == sorted(event.message_id for event in events)
    dead = {refusal.delivery.event.message_id for settlement in bench.settlements for refusal in settlement.dead}
    assert dead == {event.message_id for event in events if event.name == "poison"}
    # Sent again is only what may not have arrived, or was sent before the process could store it.
    if not any(crashes):
        twice = Counter(bench.receiver.taken) - Counter(message_id for message_id in set(bench.receiver.taken))
        assert twice <= bench.receiver.unanswered
    # The first arrivals of each person are in the order of acceptance.
    firsts = list(dict.fromkeys(bench.receiver.taken))
    for person in set(people):
        mine = [int(message_id.split(":")[1]) for message_id in firsts if message_id.startswith(f"{person}:")]
        assert mine == sorted(mine)


async def test_a_destination_that_is_down_leaves_the_events_in_the_stream() -> None:
    bench = Bench(Receiver(10, 4, statuses=[503] * 1_000))
    arrivals = [Arrival(1, 1, events_of(list(range(50)), set()))]
    assert isinstance(await bench.live.deliver(0, arrivals), Held)
    first = bench.receiver.requests
    for _ in range(30):
        assert isinstance(await bench.live.deliver(0, arrivals), Held)
        bench.time.instant += timedelta(seconds=2)
    # A minute of pauses: 10 s, 20 s and 40 s lie between the looks, each a handful of single events.
    assert bench.receiver.requests - first <= 12
    assert await bench.waiting.due([0]) == ()
    assert bench.receiver.taken == []


async def test_one_persons_failure_stops_one_person() -> None:
    """Somebody whose every event fails is parked; the others are not even late."""
    receiver = Receiver(1, 4)
    bench = Bench(receiver)

    async def send(body: bytes, idempotency_key: str) -> Answer:
        ids = [message_id for message_id, _ in json.loads(body)]
        if any(message_id.startswith("0:") for message_id in ids):
            return Answer(500)
        receiver.taken.extend(ids)
        return Answer(200)

    receiver.send = send  # type: ignore[method-assign]
    events = events_of([0, 1, 0, 2, 3, 0, 1], set())
    ended = await bench.live.deliver(0, [Arrival(1, 1, events)])
    assert isinstance(ended, Settlement)
    assert {delivery.event.message_id for delivery in ended.parked} == {"0:0", "0:2", "0:5"}
    assert len(receiver.taken) == 4


async def test_a_redelivered_message_is_done_without_being_sent() -> None:
    bench = Bench(Receiver(10, 1))
    await bench.arrive([Arrival(5, 3, events_of([1], set()))])
    # Redelivered, and published a second time with a later sequence.
    await bench.arrive([Arrival(5, 3, events_of([1], set())), Arrival(9, 3, events_of([1], set()))])
    assert bench.receiver.requests == 1


async def test_a_refused_event_is_found_in_the_middle_of_a_batch() -> None:
    bench = Bench(Receiver(100, 1))
    await bench.arrive([Arrival(1, 1, events_of([n % 10 for n in range(100)], {37, 38}))])
    assert len(bench.receiver.taken) == 98
    dead = [refusal.delivery.event.message_id for settlement in bench.settlements for refusal in settlement.dead]
    assert dead == ["7:37", "8:38"]
