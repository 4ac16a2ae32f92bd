"""What became of one event at one destination, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_router.domain.destination import Destination
from cdi_router.domain.filter import CONSENT_DENIED, FILTERED, SUPPRESSED, Filter


@dataclass(frozen=True, slots=True)
class NotMade:
    """What stays of a delivery that was not made, without anything of the person.

    Attributes:
        reason: ``consent_denied``, ``suppressed``, or why it had been given up before the person was erased.
        at: when it was held back, or deleted.
        purposes: those that were missing.
        decision_ids: the decisions that this rests on.
    """

    reason: str
    at: datetime
    purposes: tuple[str, ...] = ()
    decision_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fate:
    """What is recorded of one event at one destination.

    Attributes:
        destination_id: the destination.
        sequence: how far the event's partition was worked through; 0 is nothing yet.
        first_sequence: the first message of the partition that the destination ever saw; ``None`` if none.
        dead: reason, last status and attempts of a given-up delivery.
        withheld: why it was not made.
        waiting: it waits: failed attempts, when the next is due, the last status, and whether it is its person's earliest.
    """

    destination_id: int
    sequence: int
    first_sequence: int | None
    dead: tuple[str, int, int] | None
    withheld: NotMade | None
    waiting: tuple[int, datetime, int, bool] | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """An outcome (``cdi.event.v1.Outcome``), its reason, and a sentence without event content.

    Attributes:
        outcome: what became of it.
        reason: why.
        description: in words.
        missing: filtered by consent: the purposes that were not granted.
        decision_ids: and the decisions that this rests on.
    """

    outcome: outcome_pb2.Outcome.ValueType
    reason: str
    description: str
    missing: tuple[str, ...] = ()
    decision_ids: tuple[str, ...] = ()


def explain(destination: Destination, event: Event, sequence: int, fate: Fate) -> Explanation:
    """Puts together what is recorded and, for the many events that leave no row, what the filter says.

    The filter is the one in force now; it may have changed since.

    Args:
        destination: the document in force.
        event: as it stands in ENRICHED.
        sequence: of its message.
        fate: what is recorded.
    """
    recorded = _recorded(fate)
    if recorded is not None:
        return recorded
    if fate.first_sequence is None or sequence > fate.sequence:
        why = "not reached yet" if destination.enabled else "not reached: the destination is disabled"
        return Explanation(outcome_pb2.OUTCOME_UNSPECIFIED, "", why)
    if sequence < fate.first_sequence:
        return Explanation(outcome_pb2.OUTCOME_UNSPECIFIED, "", "the destination is newer than the event")
    sieve = Filter(destination)
    if (which := sieve.filter(event)) is not None:
        return Explanation(outcome_pb2.OUTCOME_FILTERED, FILTERED, f"left out by {which}")
    if missing := sieve.missing(event.consent.granted_purposes):
        why = f"not granted when it was enriched: {', '.join(missing)}"
        return Explanation(outcome_pb2.OUTCOME_FILTERED, CONSENT_DENIED, why, missing, tuple(event.consent.decision_ids))
    return Explanation(outcome_pb2.OUTCOME_DELIVERED, "", "delivered")


def _recorded(fate: Fate) -> Explanation | None:
    if fate.dead is not None:
        reason, status, attempts = fate.dead
        answer = f"status {status}" if status else "no answer"
        return Explanation(outcome_pb2.OUTCOME_DEAD_LETTERED, reason, f"given up after attempt {attempts}: {answer}")
    if fate.withheld is not None:
        return _not_made(fate.withheld)
    if fate.waiting is None:
        return None
    attempts, due, status, earliest = fate.waiting
    if not earliest or not attempts:
        return Explanation(outcome_pb2.OUTCOME_PARKED, "", "waits behind an earlier event of the same person, or for its turn")
    answer = f"status {status}" if status else "no answer"
    return Explanation(outcome_pb2.OUTCOME_PARKED, "", f"attempt {attempts} failed ({answer}); the next is due at {_text(due)}")


def _not_made(fate: NotMade) -> Explanation:
    if fate.reason == SUPPRESSED:
        why = f"not delivered at {_text(fate.at)}: the person is suppressed, or was erased after the event was received"
        return Explanation(outcome_pb2.OUTCOME_SUPPRESSED, SUPPRESSED, why)
    if fate.reason == CONSENT_DENIED:
        why = f"no longer granted when it was to be delivered, at {_text(fate.at)}: {', '.join(fate.purposes)}"
        return Explanation(outcome_pb2.OUTCOME_FILTERED, CONSENT_DENIED, why, fate.purposes, fate.decision_ids)
    why = f"given up; what was kept of it went when the person was erased, at {_text(fate.at)}"
    return Explanation(outcome_pb2.OUTCOME_DEAD_LETTERED, fate.reason, why)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
