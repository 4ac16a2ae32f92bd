"""One event on its way to one destination, and the places where it may end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cdi.event.v1.event_pb2 import Event
from cdi_router.domain.answer import Answer
from cdi_router.domain.retry import RetryPolicy
from cdi_router.domain.trials import Trials

MAX_REQUEST_BYTES: Final = 64 * 1024
"""How much of a request's body a dead delivery keeps."""

Key = tuple[int, int]
"""Place in the partition: sequence of the ENRICHED message, index of the event inside it. Rises in the order of acceptance."""


@dataclass(slots=True)
class Delivery:
    """One event for one destination.

    Attributes:
        event: the event.
        person: ``person_of(event)``.
        key: its place in the partition.
    """

    event: Event
    person: bytes
    key: Key


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition was worked through: the last ENRICHED sequence and the COLLECTED sequence behind it; 0 is nothing yet."""

    sequence: int = 0
    source_sequence: int = 0

    def covers(self, sequence: int, source_sequence: int) -> bool:
        """Whether a message was worked through already, be it redelivered or published a second time.

        Args:
            sequence: its sequence in ENRICHED.
            source_sequence: the COLLECTED sequence that it was made from; 0 when not known.
        """
        return sequence <= self.sequence or 0 < source_sequence <= self.source_sequence

    def after(self, sequence: int, source_sequence: int) -> Progress:
        """The progress once a message that is not covered is done."""
        return Progress(sequence, max(source_sequence, self.source_sequence))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A delivery that is given up.

    Attributes:
        delivery: the delivery.
        reason: public spelling of a ``cdi.error.v1.ErrorReason``.
        answer: the last answer.
        request: the body that was sent, cut to 64 KiB.
        attempts: how often it was tried.
        first_attempt: when first.
    """

    delivery: Delivery
    reason: str
    answer: Answer
    request: bytes
    attempts: int
    first_attempt: datetime


@dataclass(frozen=True, slots=True)
class Withheld:
    """A delivery that the person's present decisions forbid although the event itself was granted: the proof of a withdrawal.

    Attributes:
        delivery: what was not sent.
        purposes: those that were missing.
        decision_ids: the decisions of the ledger that this rests on.
    """

    delivery: Delivery
    purposes: tuple[str, ...]
    decision_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Barrier:
    """What holds a person's events back: the state of the earliest one, behind which the others wait.

    Attributes:
        person: whose.
        trials: of the earliest event.
        alone: only the earliest may be tried, in a request of its own. Set by a failure, lifted by a success.
    """

    person: bytes
    trials: Trials
    alone: bool

    def failed(self, answer: Answer, policy: RetryPolicy, now: datetime, chance: float) -> Barrier:
        """The barrier after one more failed attempt of its earliest event."""
        return Barrier(self.person, self.trials.failed(answer, policy, now, chance), alone=True)


@dataclass(slots=True)
class Settlement:
    """What became of the events of one round, to be stored in one transaction.

    Attributes:
        delivered: events that the destination took.
        filtered: events left out by the destination's filter or by the answers that they carry, and why.
        withheld: events left out by the answers of now; counted as ``consent_denied``.
        suppressed: events of people who are suppressed, or were erased after the events were received.
        parked: events that wait.
        barriers: in front of whom.
        dead: given up.
        first_sequence: the earliest ENRICHED sequence of the round; 0 for a round of waiting events.
    """

    delivered: list[Delivery] = field(default_factory=list)
    filtered: list[tuple[Delivery, str]] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    suppressed: list[Delivery] = field(default_factory=list)
    parked: list[Delivery] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    dead: list[Refusal] = field(default_factory=list)
    first_sequence: int = 0

    def filtered_by_reason(self) -> Counter[str]:
        """Number of filtered events per reason, withheld ones not included."""
        return Counter(reason for _, reason in self.filtered)


def idempotency_key(deliveries: Sequence[Delivery]) -> str:
    """The same for the same events in the same order, whenever and by whomever they are sent."""
    digest = hashlib.sha256("\x1f".join([d.event.message_id for d in deliveries]).encode())
    return digest.hexdigest()[:32]
