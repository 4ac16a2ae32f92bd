"""What the loader reports: per load, never per event. The instruments are in ``cdi_runtime.telemetry.instruments``."""

from __future__ import annotations

from typing import Final

from cdi.event.v1 import outcome_pb2
from cdi_runtime.telemetry import instruments
from cdi_warehouse_loader.domain.load import Load

MAX_TABLE_LABELS: Final = 200
"""Tables with a series of their own; event names come from strangers, so the rest is one series."""

OTHER_TABLES: Final = "_other"
_STAGE: Final = "load"
_labels: set[str] = set()


def loaded(load: Load, now_us: int, seconds: float) -> None:
    """Reports a committed load of events.

    Args:
        load: what was done, its tables without their rows.
        now_us: when it was visible.
        seconds: how long it took.
    """
    instruments.BATCH_EVENTS.record(load.events, stage=_STAGE)
    instruments.STAGE_DURATION.record(seconds, stage=_STAGE)
    oldest = now_us
    for table in load.tables:
        if not table.row_count:
            continue
        label = _label(table.table)
        instruments.ROWS_LOADED.add(table.row_count, table=label)
        if table.oldest_us is not None:
            oldest = min(oldest, table.oldest_us)
            instruments.TABLE_FRESHNESS.record(max(0.0, (now_us - table.oldest_us) / 1_000_000), table=label)
    instruments.END_TO_END_LATENCY.record(max(0.0, (now_us - oldest) / 1_000_000), stage=_STAGE)
    for key, events in load.counts.items():
        if key.outcome == outcome_pb2.OUTCOME_LOADED:
            instruments.EVENTS_ACCEPTED.add(events, stage=_STAGE)
        elif key.outcome == outcome_pb2.OUTCOME_FILTERED:
            instruments.EVENTS_FILTERED.add(events, stage=_STAGE, reason=key.reason)
        elif key.outcome == outcome_pb2.OUTCOME_SUPPRESSED:
            instruments.EVENTS_SUPPRESSED.add(events, stage=_STAGE)
        else:
            instruments.EVENTS_REJECTED.add(events, stage=_STAGE, reason=key.reason)


def _label(table: str) -> str:
    if table not in _labels and len(_labels) >= MAX_TABLE_LABELS:
        return OTHER_TABLES
    _labels.add(table)
    return table
