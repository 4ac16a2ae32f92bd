"""Rows of the tables beside the events': rejected events and changes of the identity graph."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cdi.event.v1 import rejected_event_pb2
from cdi.identity.v1 import profile_pb2
from cdi_warehouse_loader.domain.columns import ARROW, ColumnType, json_text
from cdi_warehouse_loader.domain.layout import ID_GRAPH_COLUMNS, REJECTED_COLUMNS, Columns

_PREFIX = "FAILURE_TYPE_"


def rejected_rows(events: Sequence[rejected_event_pb2.RejectedEvent], now_us: int) -> Any:
    """Rows of ``rejected_events``."""
    return _batch(REJECTED_COLUMNS, [_rejected_row(event, now_us) for event in events])


def merged_rows(changes: Sequence[tuple[int, profile_pb2.GraphChanged]], now_us: int) -> Any:
    """Rows of ``id_graph_updates``, from changes of the graph with their stream sequence."""
    rows = [
        (
            change.workspace_id,
            entry.profile_id,
            entry.canonical_profile_id,
            entry.triggering_event_type or None,
            entry.triggering_event_id or None,
            _micros(change.change_time),
            sequence,
            now_us,
        )
        for sequence, change in changes
        for entry in change.canonicals
    ]
    return _batch(ID_GRAPH_COLUMNS, rows)


def _rejected_row(event: rejected_event_pb2.RejectedEvent, now_us: int) -> tuple[Any, ...]:
    payload, encoding = _payload(event)
    return (
        event.rejection_id,
        event.workspace_id,
        event.source_id,
        event.message_id or None,
        event.type or None,
        event.name or None,
        rejected_event_pb2.FailureType.Name(event.failure_type).removeprefix(_PREFIX).lower(),
        event.reason,
        event.description,
        event.stage,
        event.stage_version or None,
        _micros(event.received_time),
        _micros(event.rejected_time),
        payload,
        encoding,
        event.payload_truncated,
        json_text(list(event.violation_paths)),
        now_us,
    )


def _payload(event: rejected_event_pb2.RejectedEvent) -> tuple[str | None, str | None]:
    """The collector keeps what the client sent, which is text unless it is broken; later stages keep a serialized event."""
    if not event.payload:
        return None, None
    if event.stage == "collector":
        try:
            return event.payload.decode(), "text"
        except UnicodeDecodeError:
            pass
    return base64.b64encode(event.payload).decode(), "base64"


def _micros(time: Any) -> int | None:
    return time.seconds * 1_000_000 + time.nanos // 1_000 or None


def _batch(columns: Columns, rows: Sequence[tuple[Any, ...]]) -> Any:
    arrays = []
    for kind, values in zip(columns.values(), zip(*rows, strict=True), strict=True):
        if kind is ColumnType.TIMESTAMP:
            arrays.append(pa.array(values, pa.int64()).cast(ARROW[kind]))
        else:
            arrays.append(pa.array(values, ARROW[kind]))
    return pa.RecordBatch.from_arrays(arrays, list(columns))
