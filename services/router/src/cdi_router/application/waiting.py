"""Waiting events: retried when due, the earliest of each person first, with consent asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cdi_router.application.courier import Failure, Round
from cdi_router.application.target import EXHAUSTED, Admission, Target
from cdi_router.domain.breaker import TOLERATED
from cdi_router.domain.delivery import MAX_REQUEST_BYTES, Barrier, Delivery, Refusal, Settlement
from cdi_router.domain.trials import Trials
from cdi_router.ports import Consent, DeliveryStore, Queue

PEOPLE_PER_ROUND: Final = 200
EVENTS_PER_PERSON: Final = 100


@dataclass(slots=True)
class _Sorted:
    """The deliveries of a round: those that go alone, and those that go in batches."""

    alone: list[Delivery] = field(default_factory=list)
    together: list[Delivery] = field(default_factory=list)


class WaitingDelivery:
    """Delivers the waiting events of one destination.

    Runs beside ``LiveDelivery`` without a lock: a person is barred from when their first event is parked until the transaction that
    removes their last one, so the two never send events of the same person.
    """

    def __init__(self, target: Target, store: DeliveryStore, consent: Consent) -> None:
        self._target = target
        self._store = store
        self._consent = consent

    async def due(self, partitions: Sequence[int]) -> Sequence[int]:
        """Those of the partitions in which something is to be tried now."""
        target = self._target
        if not partitions or target.pause():
            return ()
        return await self._store.due(target.destination_id, partitions, target.clock.now())

    async def retry(self, partition: int) -> Settlement | None:
        """Tries once what is due in a partition.

        Returns:
            What became of it, stored; ``None`` when nothing is due.

        Raises:
            Fault: retryable when Postgres or consent is away.
        """
        target = self._target
        # While the destination is down a few people are enough to see whether it is back.
        people = TOLERATED if target.breaker.down else PEOPLE_PER_ROUND
        queues = await self._store.queues(target.destination_id, partition, target.clock.now(), people=people, events=EVENTS_PER_PERSON)
        if not queues:
            return None
        settlement = Settlement()
        admission = Admission(target, self._consent, settlement)
        admitted = await admission.first([delivery for queue in queues for delivery in queue.deliveries])
        rounds = await self._send(partition, queues, admitted, admission)
        fault = next((made.fault for made in rounds if made.fault is not None), None)
        if fault is not None and not any(made.sent for made in rounds):
            raise fault
        freed: set[bytes] = set()
        for made in rounds:
            self._conclude(settlement, made, {queue.barrier.person: queue for queue in queues})
            freed |= {delivery.person for delivery in made.delivered}
        freed -= {barrier.person for barrier in settlement.barriers}
        await self._store.settle_parked(target.destination_id, partition, target.clock.now(), settlement, sorted(freed))
        return settlement

    async def _send(self, partition: int, queues: Sequence[Queue], admitted: Sequence[Delivery], admission: Admission) -> Sequence[Round]:
        """Events that failed before go in a request of their own, so that one poisonous event is found out without costing others."""
        cautious = {queue.barrier.person for queue in queues if queue.barrier.alone}
        kinds = _Sorted()
        for delivery in admitted:
            (kinds.alone if delivery.person in cautious else kinds.together).append(delivery)
        courier, breaker = self._target.courier, self._target.breaker
        rounds: list[Round] = []
        for deliveries, alone in ((kinds.alone, True), (kinds.together, False)):
            if not deliveries or self._target.pause():
                continue
            probing = breaker.down
            made = await courier.deliver(partition, deliveries, admission.again, alone=alone, probing=probing)
            rounds.append(made)
            # That people fail who failed before is no sign that the destination is down; that they still do is one that it still is.
            if made.answers or probing:
                self._target.learn(made)
        return rounds

    def _conclude(self, settlement: Settlement, made: Round, queues: Mapping[bytes, Queue]) -> None:
        settlement.delivered += made.delivered
        for refusal in self._target.refusals(made):
            barrier = _state(queues[refusal.delivery.person], refusal.delivery)
            trials = barrier.trials
            first, attempts = trials.first_attempt or refusal.first_attempt, trials.attempts + refusal.attempts
            settlement.dead.append(replace(refusal, attempts=attempts, first_attempt=first))
        for failure in made.failed:
            self._fail(settlement, failure, _state(queues[failure.delivery.person], failure.delivery))

    def _fail(self, settlement: Settlement, failure: Failure, barrier: Barrier) -> None:
        """Waits again, or gives up; the next event of that person is then tried alone."""
        target, now = self._target, self._target.clock.now()
        policy = target.destination.retry
        again = barrier.failed(failure.answer, policy, now, target.clock.chance())
        # Nobody is given up for a request that others were in.
        trials = again.trials
        if failure.alone and trials.exhausted(policy, now):
            body = target.courier.body(failure.delivery)[:MAX_REQUEST_BYTES]
            first = trials.first_attempt or now
            settlement.dead.append(Refusal(failure.delivery, EXHAUSTED, failure.answer, body, trials.attempts, first))
            again = Barrier(barrier.person, Trials(now), alone=True)
        settlement.barriers.append(again)


def _state(queue: Queue, delivery: Delivery) -> Barrier:
    """The state of a delivery: that of the barrier for the earliest of its person; a later one starts anew."""
    if delivery.key == queue.deliveries[0].key:
        return queue.barrier
    return Barrier(delivery.person, Trials(queue.barrier.trials.due), alone=True)
