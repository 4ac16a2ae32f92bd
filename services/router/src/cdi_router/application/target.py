"""One destination in operation: its document, filter, courier, and whether it is down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import reason_name
from cdi_router.application.courier import Courier, Round
from cdi_router.domain.breaker import Breaker
from cdi_router.domain.delivery import MAX_REQUEST_BYTES, Delivery, Refusal, Settlement, Withheld
from cdi_router.domain.destination import Destination
from cdi_router.domain.filter import Filter
from cdi_router.ports import Allowed, Clock, Consent, Subject

REFUSED = reason_name(error_pb2.ERROR_REASON_DESTINATION_REFUSED)
EXHAUSTED = reason_name(error_pb2.ERROR_REASON_RETRIES_EXHAUSTED)

ASK_AGAIN_SECONDS: Final = 1.0
"""How old the answer of consent may be when a request begins. With the time that the answer takes, a withdrawal holds within 2 s."""


@dataclass(frozen=True, slots=True)
class Target:
    """What new and waiting deliveries to one destination share.

    Attributes:
        destination_id: its key in the store.
        destination: the document in force.
        filter: which events it gets.
        courier: sends.
        breaker: whether it is down.
        clock: time and chance.
    """

    destination_id: int
    destination: Destination
    filter: Filter
    courier: Courier
    breaker: Breaker
    clock: Clock

    def pause(self) -> float:
        """Seconds for which nothing should be sent."""
        return self.breaker.pause(self.clock.now().timestamp())

    def learn(self, made: Round) -> None:
        """Takes from a round whether the destination answers."""
        if made.answers:
            self.breaker.answered()
        if made.down and made.failed:
            people = [failure.delivery.person for failure in made.failed]
            self.breaker.failed(people, self.clock.now().timestamp(), self.clock.chance(), made.retry_after)

    def refusals(self, made: Round) -> list[Refusal]:
        """The refused deliveries of a round, as dead ones."""
        now = self.clock.now()
        return [
            Refusal(delivery, REFUSED, answer, self.courier.body(delivery)[:MAX_REQUEST_BYTES], 1, now) for delivery, answer in made.refused
        ]


class Admission:
    """Who may be delivered to in a round: nobody who is suppressed; the answer on the event and that of the moment must grant all purposes.

    Asked for all at once when the round begins, and again for a request that begins more than a moment later: a round may take minutes
    where a destination is slow, and a withdrawal stops what has not been sent. Who may not is noted in ``settlement``.
    """

    def __init__(self, target: Target, consent: Consent, settlement: Settlement) -> None:
        self._target = target
        self._consent = consent
        self._settlement = settlement
        self._asked = 0.0

    async def first(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those of a round that may be sent. Raises a ``Fault`` when consent does not answer."""
        granted: list[Delivery] = []
        for delivery in deliveries:
            reason = self._target.filter.reason(delivery.event)
            if reason is None:
                granted.append(delivery)
            else:
                self._settlement.filtered.append((delivery, reason))
        return await self._ask(granted)

    async def again(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those of a request that may still be sent. Raises as ``first``."""
        if self._target.clock.now().timestamp() - self._asked < ASK_AGAIN_SECONDS:
            return batch
        return await self._ask(batch)

    async def _ask(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if not self._asked:
            self._asked = self._target.clock.now().timestamp()
        if not deliveries:
            return deliveries
        subjects = [_subject(delivery) for delivery in deliveries]
        allowed = await self._allowed(subjects)
        free: list[Delivery] = []
        for delivery, subject in zip(deliveries, subjects, strict=True):
            one = allowed[subject]
            if one.suppressed:
                self._settlement.suppressed.append(delivery)
            elif missing := self._target.filter.missing(one.purposes):
                self._settlement.withheld.append(Withheld(delivery, missing, one.decision_ids))
            else:
                free.append(delivery)
        return free

    async def _allowed(self, subjects: Sequence[Subject]) -> Mapping[Subject, Allowed]:
        """Asks once about each person, as of their earliest event; and event by event only about whom that one is suppressed."""
        earliest: dict[tuple[str, str, str, str], int] = {}
        for subject in subjects:
            earliest[subject[:-1]] = min(subject[-1], earliest.get(subject[:-1], subject[-1]))
        first = await self._consent.allowed([(*who, received_us) for who, received_us in earliest.items()])
        found = {subject: first[*subject[:-1], earliest[subject[:-1]]] for subject in subjects}
        unsure = [subject for subject, one in found.items() if one.suppressed and subject not in first]
        return {**found, **(await self._consent.allowed(unsure) if unsure else {})}


def _subject(delivery: Delivery) -> Subject:
    event = delivery.event
    return event.workspace_id, event.user_id, event.anonymous_id, event.consent.region, event.received_time.ToMicroseconds()
