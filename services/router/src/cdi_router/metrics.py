"""What is counted and traced of deliveries: per batch, and a span for each sampled event."""

from __future__ import annotations

import time
from collections.abc import Iterable

from opentelemetry.trace import SpanKind

from cdi_router.domain.delivery import Delivery, Settlement
from cdi_router.domain.filter import CONSENT_DENIED, SUPPRESSED
from cdi_runtime.telemetry import event_span, instruments

STAGE = "deliver"

Ended = tuple[Delivery, str, str]


class Observer:
    """Observes one destination."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._span = f"deliver {destination}"

    def settled(self, settlement: Settlement, started_ns: int) -> None:
        """A batch ended.

        Args:
            settlement: what became of its events.
            started_ns: Unix time in nanoseconds when the batch began.
        """
        now = time.time_ns()
        instruments.STAGE_DURATION.record((now - started_ns) / 1e9, stage=STAGE)
        counts = {"delivered": len(settlement.delivered), "parked": len(settlement.parked), "refused": len(settlement.dead)}
        counts["retried"] = sum(1 for barrier in settlement.barriers if barrier.trials.attempts > 1)
        for kind, count in counts.items():
            instruments.DELIVERIES.add(count, destination=self._destination, **{"class": kind})
        for reason, count in settlement.filtered_by_reason().items():
            instruments.EVENTS_FILTERED.add(count, stage=STAGE, reason=reason)
        instruments.EVENTS_FILTERED.add(len(settlement.withheld), stage=STAGE, reason=CONSENT_DENIED)
        instruments.EVENTS_SUPPRESSED.add(len(settlement.suppressed), stage=STAGE)
        if settlement.delivered:
            instruments.BATCH_EVENTS.record(len(settlement.delivered), stage=STAGE)
            received = settlement.delivered[0].event.received_time
            latency = now / 1e9 - (received.seconds + received.nanos / 1e9)
            instruments.END_TO_END_LATENCY.record(max(latency, 0.0), stage=STAGE)
        for delivery, outcome, reason in _sampled(settlement):
            attributes = {
                "cdi.message_id": delivery.event.message_id,
                "cdi.destination": self._destination,
                "cdi.outcome": outcome,
                "cdi.reason": reason,
            }
            event_span(self._span, delivery.event.traceparent, attributes=attributes, start_time_ns=started_ns, kind=SpanKind.CONSUMER).end(
                now
            )


def parked(counts: Iterable[tuple[str, int]]) -> None:
    """Sets how many events wait, per destination."""
    for destination, events in counts:
        instruments.DELIVERIES_PARKED.set(events, destination=destination)


def _sampled(settlement: Settlement) -> Iterable[Ended]:
    ended: list[Ended] = [(delivery, "delivered", "") for delivery in settlement.delivered if delivery.event.traceparent]
    ended += [(delivery, "parked", "") for delivery in settlement.parked if delivery.event.traceparent]
    ended += [(delivery, "filtered", reason) for delivery, reason in settlement.filtered if delivery.event.traceparent]
    ended += [(w.delivery, "filtered", CONSENT_DENIED) for w in settlement.withheld if w.delivery.event.traceparent]
    ended += [(delivery, "suppressed", SUPPRESSED) for delivery in settlement.suppressed if delivery.event.traceparent]
    ended += [(r.delivery, "dead_lettered", r.reason) for r in settlement.dead if r.delivery.event.traceparent]
    return ended
