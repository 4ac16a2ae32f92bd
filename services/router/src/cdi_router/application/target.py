"""One destination in operation: its document, filter, courier, and whether it is down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import reason_name
from cdi_router.application.courier import Courier, Round
from cdi_router.domain.breaker import Breaker
from cdi_router.domain.delivery import MAX_REQUEST_BYTES, Delivery, Refusal, Settlement, Withheld
from cdi_router.domain.destination import Destination
from cdi_router.domain.filter import Filter
from cdi_router.ports import Clock, Consent, Subject

REFUSED = reason_name(error_pb2.ERROR_REASON_DESTINATION_REFUSED)
EXHAUSTED = reason_name(error_pb2.ERROR_REASON_RETRIES_EXHAUSTED)


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

    async def admit(self, consent: Consent, deliveries: Sequence[Delivery], settlement: Settlement) -> Sequence[Delivery]:
        """The deliveries that may be sent now; the others are noted in ``settlement`` with their reason.

        Both the answer on the event and the answer of this moment must grant every purpose of the destination.
        """
        asked: list[Delivery] = []
        for delivery in deliveries:
            reason = self.filter.reason(delivery.event)
            if reason is None:
                asked.append(delivery)
            else:
                settlement.filtered.append((delivery, reason))
        if not self.destination.purposes or not asked:
            return asked
        subjects = [_subject(delivery) for delivery in asked]
        granted = await consent.granted(list(dict.fromkeys(subjects)))
        missing = {subject: self.filter.missing(purposes) for subject, purposes in granted.items()}
        settlement.withheld += [
            Withheld(delivery, missing[subject]) for delivery, subject in zip(asked, subjects, strict=True) if missing[subject]
        ]
        return [delivery for delivery, subject in zip(asked, subjects, strict=True) if not missing[subject]]


def _subject(delivery: Delivery) -> Subject:
    event = delivery.event
    return event.workspace_id, event.user_id, event.anonymous_id
