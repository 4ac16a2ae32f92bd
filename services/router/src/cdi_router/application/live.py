"""New events: filter, ask consent, stand behind what waits, send, and store what became of them with the progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdi.event.v1.event_pb2 import Event
from cdi_router.application.courier import Round
from cdi_router.application.target import Admission, Target
from cdi_router.domain.delivery import Barrier, Delivery, Progress, Settlement
from cdi_router.domain.person import person_of
from cdi_router.domain.trials import Trials
from cdi_router.ports import Consent, DeliveryStore

LOOK_AGAIN_SECONDS: Final = 2.0
"""How soon a held partition looks whether the destination is back: another partition may have found out."""

STALE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """One ENRICHED message.

    Attributes:
        sequence: in ENRICHED.
        source_sequence: the COLLECTED sequence behind it; 0 when not known.
        events: in order.
    """

    sequence: int
    source_sequence: int
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Held:
    """The arrivals stay in the stream and are to be given again."""

    seconds: float
    reason: str


class LiveDelivery:
    """Delivers the new events of one destination."""

    def __init__(self, target: Target, store: DeliveryStore, consent: Consent) -> None:
        self._target = target
        self._store = store
        self._consent = consent

    async def deliver(self, partition: int, arrivals: Sequence[Arrival]) -> Settlement | Held:
        """Works through messages of one partition; calls for one partition follow each other.

        Returns:
            What became of the events, stored; or that the messages have to wait.

        Raises:
            Fault: retryable when Postgres or consent is away. What was sent before Postgres went away is sent again.
        """
        target = self._target
        if pause := target.pause():
            return Held(min(pause, LOOK_AGAIN_SECONDS), "the destination is down")
        standing = await self._store.standing(target.destination_id, partition)
        deliveries, after = self._unpack(arrivals, standing.progress)
        settlement = Settlement(first_sequence=arrivals[0].sequence)
        if after == standing.progress:
            return settlement
        admission = Admission(target, self._consent, settlement)
        admitted = await admission.first(deliveries)
        free = admitted
        if standing.barred:
            free = [delivery for delivery in admitted if delivery.person not in standing.barred]
            settlement.parked += [delivery for delivery in admitted if delivery.person in standing.barred]
        made = await target.courier.deliver(partition, free, admission.again, probing=target.breaker.down)
        if made.fault is not None and not made.sent:
            raise made.fault
        target.learn(made)
        if made.down and not made.answers and target.breaker.down:
            return Held(min(target.pause(), LOOK_AGAIN_SECONDS), "the destination is down")
        self._conclude(settlement, made)
        if not await self._store.settle(target.destination_id, partition, standing.progress, after, settlement):
            return Held(STALE_SECONDS, "another replica worked on the partition")
        return settlement

    def _unpack(self, arrivals: Sequence[Arrival], progress: Progress) -> tuple[list[Delivery], Progress]:
        """The deliveries of what was not worked through before, and the progress after it."""
        deliveries: list[Delivery] = []
        mine = self._target.filter.of_workspace
        for arrival in arrivals:
            if progress.covers(arrival.sequence, arrival.source_sequence):
                continue
            progress = progress.after(arrival.sequence, arrival.source_sequence)
            deliveries += [
                Delivery(event, person_of(event), (arrival.sequence, index)) for index, event in enumerate(arrival.events) if mine(event)
            ]
        return deliveries, progress

    def _conclude(self, settlement: Settlement, made: Round) -> None:
        """Parks what failed, each person behind a barrier of their own, and what must not be sent before it."""
        target = self._target
        settlement.delivered += made.delivered
        settlement.dead += target.refusals(made)
        settlement.parked += [failure.delivery for failure in made.failed]
        settlement.parked += made.behind
        now = target.clock.now()
        # Also for those who waited before: their barrier may have fallen since, and a row without one would wait for ever.
        barriers = {delivery.person: Barrier(delivery.person, Trials(now), alone=False) for delivery in settlement.parked}
        for failure in made.failed:
            barrier = barriers[failure.delivery.person]
            barriers[barrier.person] = barrier.failed(failure.answer, target.destination.retry, now, target.clock.chance())
        settlement.barriers += barriers.values()
