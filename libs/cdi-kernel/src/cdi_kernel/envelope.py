"""The envelope of a bus message: header names, and event batches framed without building them twice.

Source of the framing: the protobuf wire format; field 1 of ``EventBatch`` is length-delimited, so its tag is 0x0a and a batch is the
concatenation of framed events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_kernel.topology import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from cdi_kernel.wire import varint

MESSAGE_ID: Final = "Nats-Msg-Id"
"""JetStream drops a second message with the same id within the duplicate window."""

TRACEPARENT: Final = "traceparent"
"""W3C trace context of the span that published the message."""

SCHEMA: Final = "Cdi-Schema"
"""Full name of the protobuf message in the payload."""

EVENTS: Final = "Cdi-Events"
"""Number of events in the payload, so that counting needs headers only."""

SOURCE_SEQUENCE: Final = "Cdi-Source-Sequence"
"""On ENRICHED: the COLLECTED sequence that this message was made from. Rises strictly within a partition, so that a sink that
remembers the last one never takes the same events twice, however late they are published again."""

EVENT_BATCH_SCHEMA: Final = "cdi.event.v1.EventBatch"
REJECTED_BATCH_SCHEMA: Final = "cdi.event.v1.RejectedBatch"
DEAD_LETTER_SCHEMA: Final = "cdi.event.v1.DeadLetter"

_EVENTS_TAG: Final = b"\x0a"
_HEADS: Final = tuple(_EVENTS_TAG + varint(length) for length in range(4_096))
"""Tag and length of nearly every event."""


def frame(event: bytes) -> bytes:
    """One serialized event as it stands inside a serialized ``EventBatch``."""
    length = len(event)
    return (_HEADS[length] if length < len(_HEADS) else _EVENTS_TAG + varint(length)) + event


@dataclass(frozen=True, slots=True)
class Framed:
    """A serialized ``EventBatch``.

    Attributes:
        payload: the bytes.
        events: number of events inside.
    """

    payload: bytes
    events: int


def pack(frames: Sequence[bytes], *, max_events: int = MAX_BATCH_EVENTS, max_bytes: int = MAX_BATCH_BYTES) -> Iterable[Framed]:
    """Cuts framed events, in order, into serialized batches within the limits; an event over ``max_bytes`` gets a batch of its own."""
    if len(frames) <= max_events and len(whole := b"".join(frames)) <= max_bytes:
        # Nearly always, and without a look at each.
        if frames:
            yield Framed(whole, len(frames))
        return
    start, size = 0, 0
    for index, framed in enumerate(frames):
        if index > start and (size + len(framed) > max_bytes or index - start >= max_events):
            yield Framed(b"".join(frames[start:index]), index - start)
            start, size = index, 0
        size += len(framed)
    if start < len(frames):
        yield Framed(b"".join(frames[start:]), len(frames) - start)
