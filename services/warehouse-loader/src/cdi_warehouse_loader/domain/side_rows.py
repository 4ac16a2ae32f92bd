"""Rows of ``rejected_events``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from cdi.event.v1 import rejected_event_pb2
from cdi_warehouse_loader.domain.columns import json_text, record_batch
from cdi_warehouse_loader.domain.instants import micros
from cdi_warehouse_loader.domain.layout import REJECTED_COLUMNS

_PREFIX = "FAILURE_TYPE_"


def rejected_rows(events: Sequence[rejected_event_pb2.RejectedEvent], now_us: int) -> Any:
    """Rows of ``rejected_events``."""
    return record_batch(REJECTED_COLUMNS, list(zip(*[_rejected_row(event, now_us) for event in events], strict=True)))


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
        micros(event.received_time),
        micros(event.rejected_time),
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
