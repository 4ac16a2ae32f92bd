"""Refused events of an HTTP batch as ``RejectedEvent``: kept with their bytes, so that they can be looked at and sent again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi.event.v1 import rejected_event_pb2
from cdi.event.v1.rejected_event_pb2 import FailureType, RejectedEvent
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.limits import MAX_REJECTED_PAYLOAD_BYTES
from cdi_collector.domain.sources import Source
from cdi_kernel.faults import Reason

STAGE: Final = "collector"
_MAX_SHOWN: Final = 256

_FORMAT: Final = frozenset(
    {error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, error_pb2.ERROR_REASON_INVALID_ENCODING, error_pb2.ERROR_REASON_NESTING_TOO_DEEP}
)


class _Shown(msgspec.Struct, rename="camel"):
    """What a table of rejected events shows, if the event lets itself be read so far; ``e`` and ``eid`` are Snowplow's words."""

    type: object = None
    e: object = None
    event: object = None
    name: object = None
    message_id: object = None
    eid: object = None


def failure_type(reason: Reason) -> FailureType.ValueType:
    """The class of a rejection."""
    if reason == error_pb2.ERROR_REASON_TOO_LARGE:
        return rejected_event_pb2.FAILURE_TYPE_SIZE_VIOLATION
    if reason in _FORMAT:
        return rejected_event_pb2.FAILURE_TYPE_COLLECTOR_PAYLOAD_FORMAT_VIOLATION
    return rejected_event_pb2.FAILURE_TYPE_TRACKER_PROTOCOL_VIOLATION


def rejected_events(
    intake: Intake, items: Sequence[bytes], source: Source, received_us: int, version: str, new_id: Callable[[], str]
) -> list[RejectedEvent]:
    """The refusals of an intake.

    Args:
        intake: what the request came to.
        items: the bytes of all items of the request.
        source: whose they were.
        received_us: when the request came; also the time of the rejection.
        version: of the collector.
        new_id: makes rejection ids.
    """
    rejected = []
    for refusal in intake.refusals:
        payload = items[refusal.index]
        shown = _shown(payload)
        event = RejectedEvent(
            rejection_id=new_id(),
            workspace_id=source.workspace_id,
            source_id=source.source_id,
            message_id=intake.message_ids[refusal.index] or _text(shown.message_id) or _text(shown.eid),
            type=_text(shown.type) or _text(shown.e),
            name=_text(shown.event) or _text(shown.name),
            failure_type=failure_type(refusal.fault.reason),
            reason=refusal.fault.reason_name,
            description=refusal.fault.message,
            stage=STAGE,
            stage_version=version,
            payload=payload[:MAX_REJECTED_PAYLOAD_BYTES],
            payload_truncated=len(payload) > MAX_REJECTED_PAYLOAD_BYTES,
        )
        event.received_time.FromMicroseconds(received_us)
        event.rejected_time.FromMicroseconds(received_us)
        rejected.append(event)
    return rejected


def _shown(payload: bytes) -> _Shown:
    try:
        return msgspec.json.decode(payload, type=_Shown)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Shown()


def _text(value: object) -> str:
    return value[:_MAX_SHOWN].replace("\0", "\ufffd") if isinstance(value, str) else ""
