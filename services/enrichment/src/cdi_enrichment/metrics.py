"""What a batch adds to the metrics; names are in ``cdi_runtime.telemetry.instruments``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from cdi.event.v1 import outcome_pb2
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.ports import Advance
from cdi_runtime.telemetry import instruments

_STAGE: Final = "enrich"


def record(moves: Iterable[Advance], arrived: Sequence[Passage], seconds: float) -> None:
    """Counts a finished batch.

    Args:
        moves: what became of its events.
        arrived: its events, the oldest first.
        seconds: how long it took.
    """
    for move in moves:
        for (outcome, reason), events in move.counts.items():
            if outcome == outcome_pb2.OUTCOME_ENRICHED:
                instruments.EVENTS_ACCEPTED.add(events, stage=_STAGE)
            elif outcome == outcome_pb2.OUTCOME_DUPLICATE:
                instruments.EVENTS_DUPLICATE.add(events, stage=_STAGE)
            elif outcome == outcome_pb2.OUTCOME_SUPPRESSED:
                instruments.EVENTS_SUPPRESSED.add(events, stage=_STAGE)
            elif outcome == outcome_pb2.OUTCOME_REJECTED:
                instruments.EVENTS_REJECTED.add(events, stage=_STAGE, reason=reason)
    if arrived:
        instruments.BATCH_EVENTS.record(len(arrived), stage=_STAGE)
        instruments.STAGE_DURATION.record(seconds, stage=_STAGE)
        received = arrived[0].event.received_time
        instruments.END_TO_END_LATENCY.record(max(0.0, time.time() - received.seconds - received.nanos / 1e9), stage=_STAGE)
