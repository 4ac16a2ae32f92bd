"""What the collector counts. Requests are tallied in memory and added to the metrics once a second.

An OpenTelemetry counter costs 10 µs a call, a fifth of what a request with one event costs altogether.
"""

from __future__ import annotations

import asyncio
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

_FLUSH_SECONDS: Final = 1.0


class Tally:
    """Counts of requests and their events since the last flush."""

    def __init__(self) -> None:
        self._received: Counter[str] = Counter()
        self._accepted = 0
        self._rejected: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()

    def stored(self, intake: Intake, protocol: str) -> None:
        """A request whose events are stored."""
        self._received[protocol] += len(intake.message_ids)
        self._accepted += intake.accepted
        for refusal in intake.refusals:
            self._rejected[refusal.fault.reason_name] += 1

    def refused(self, fault: Fault, protocol: str) -> None:
        """A request that was refused as a whole; how many events it held is not known."""
        self._refused[protocol, fault.reason_name] += 1

    def flush(self) -> None:
        """Adds the counts to the metrics and starts from zero."""
        for protocol, events in self._received.items():
            instruments.EVENTS_RECEIVED.add(events, protocol=protocol)
        instruments.EVENTS_ACCEPTED.add(self._accepted, stage=STAGE)
        for reason, events in self._rejected.items():
            instruments.EVENTS_REJECTED.add(events, stage=STAGE, reason=reason)
        for (protocol, reason), requests in self._refused.items():
            REQUESTS_REFUSED.add(requests, protocol=protocol, reason=reason)
        self._received.clear()
        self._rejected.clear()
        self._refused.clear()
        self._accepted = 0

    async def run(self) -> None:
        """Flushes once a second until cancelled, and a last time then."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                self.flush()
        finally:
            self.flush()


def record_commit(events: int, seconds: float) -> None:
    """Events that were stored together, and how long it took from the first of them being handed over."""
    instruments.BATCH_EVENTS.record(events, stage=STAGE)
    instruments.STAGE_DURATION.record(seconds, stage=STAGE)
