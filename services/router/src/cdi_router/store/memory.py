"""The twin of ``deliveries`` without a database, for tests; held to the same conformance suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cdi_router.domain.delivery import Barrier, Delivery, Key, Progress, Settlement
from cdi_router.domain.trials import Trials
from cdi_router.ports import Queue, Standing

Place = tuple[int, int]


@dataclass
class _Partition:
    progress: Progress = field(default_factory=Progress)
    parked: dict[Key, Delivery] = field(default_factory=dict)
    barriers: dict[bytes, Barrier] = field(default_factory=dict)

    def queue(self, person: bytes) -> list[Delivery]:
        return [self.parked[key] for key in sorted(self.parked) if self.parked[key].person == person]


class MemoryDeliveries:
    """``DeliveryStore`` in memory."""

    def __init__(self) -> None:
        self._partitions: dict[Place, _Partition] = {}

    async def standing(self, destination_id: int, partition: int) -> Standing:
        """See ``DeliveryStore``."""
        place = self._at(destination_id, partition)
        return Standing(place.progress, frozenset(place.barriers))

    async def settle(self, destination_id: int, partition: int, before: Progress, after: Progress, settlement: Settlement) -> bool:
        """See ``DeliveryStore``."""
        place = self._at(destination_id, partition)
        if place.progress != before:
            return False
        place.progress = after
        place.parked |= {delivery.key: delivery for delivery in settlement.parked}
        for barrier in settlement.barriers:
            place.barriers.setdefault(barrier.person, barrier)
        return True

    async def due(self, destination_id: int, partitions: Sequence[int], now: datetime) -> Sequence[int]:
        """See ``DeliveryStore``."""
        return [p for p in partitions if any(barrier.trials.due <= now for barrier in self._at(destination_id, p).barriers.values())]

    async def queues(self, destination_id: int, partition: int, now: datetime, *, people: int, events: int) -> Sequence[Queue]:
        """See ``DeliveryStore``."""
        place = self._at(destination_id, partition)
        due = sorted((b for b in place.barriers.values() if b.trials.due <= now), key=lambda b: (b.trials.due, b.person))
        return [Queue(b, place.queue(b.person)[: 1 if b.alone else events]) for b in due[:people]]

    async def settle_parked(
        self, destination_id: int, partition: int, now: datetime, settlement: Settlement, freed: Sequence[bytes]
    ) -> None:
        """See ``DeliveryStore``."""
        place = self._at(destination_id, partition)
        ended = [
            *settlement.delivered,
            *(delivery for delivery, _ in settlement.filtered),
            *(withheld.delivery for withheld in settlement.withheld),
            *settlement.suppressed,
            *(refusal.delivery for refusal in settlement.dead),
        ]
        people = {delivery.person for delivery in ended if place.parked.pop(delivery.key, None) is not None}
        for person in people & place.barriers.keys():
            place.barriers[person] = Barrier(person, Trials(now), place.barriers[person].alone and person not in freed)
        place.barriers |= {barrier.person: barrier for barrier in settlement.barriers}
        for person in people | {barrier.person for barrier in settlement.barriers}:
            if not place.queue(person):
                place.barriers.pop(person, None)

    def _at(self, destination_id: int, partition: int) -> _Partition:
        return self._partitions.setdefault((destination_id, partition), _Partition())
