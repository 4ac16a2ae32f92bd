"""What the collector counts, once per request."""

from __future__ import annotations

from collections import Counter
from typing import Final

from cdi_collector.domain.intake import Intake
from cdi_kernel.faults import Fault
from cdi_runtime.telemetry import instruments

STAGE: Final = "collect"

REQUESTS_REFUSED: Final = instruments.Counter(
    instruments.Described(
        "cdi_requests_refused", "counter", "{request}", "Requests that were refused as a whole.", frozenset({"protocol", "reason"})
    )
)


def record_intake(intake: Intake, protocol: str, seconds: float) -> None:
    """A request whose events are stored."""
    received = len(intake.message_ids)
    instruments.EVENTS_RECEIVED.add(received, protocol=protocol)
    instruments.EVENTS_ACCEPTED.add(intake.accepted, stage=STAGE)
    instruments.BATCH_EVENTS.record(received, stage=STAGE)
    instruments.STAGE_DURATION.record(seconds, stage=STAGE)
    if intake.refusals:
        for reason, events in Counter(refusal.fault.reason_name for refusal in intake.refusals).items():
            instruments.EVENTS_REJECTED.add(events, stage=STAGE, reason=reason)


def record_refusal(protocol: str, fault: Fault) -> None:
    """A request that was refused as a whole; how many events it held is not known."""
    REQUESTS_REFUSED.add(1, protocol=protocol, reason=fault.reason_name)
