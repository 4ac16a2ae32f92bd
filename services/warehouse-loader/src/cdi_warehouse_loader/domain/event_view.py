"""Events as the loader reads them: ids and JSON bytes as they are, sub-messages as bytes to be decoded once per distinct value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from cdi.event.v1 import event_pb2
from cdi_kernel.shallow import shallow


class EventView(Protocol):
    """The fields of ``cdi.event.v1.Event`` that the loader reads; times and results of stages are serialized messages."""

    workspace_id: str
    source_id: str
    message_id: str
    type: int
    name: str
    category: str
    user_id: str
    anonymous_id: str
    group_id: str
    previous_id: str
    original_time: bytes
    sent_time: bytes
    received_time: bytes
    event_time: bytes
    properties: bytes
    traits: bytes
    context: bytes
    traceparent: str
    schema_uri: str
    signals: bytes
    consent: bytes
    identity: bytes
    enrichments: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The event as protobuf writes it."""
        ...


class BatchView(Protocol):
    """``cdi.event.v1.EventBatch``."""

    @property
    def events(self) -> Sequence[EventView]:
        """The events in order."""
        ...


read_batch: Final = cast(Callable[[bytes], BatchView], shallow(event_pb2.EventBatch, levels=2).FromString)
"""Parses an ``EventBatch``; raises ``google.protobuf.message.DecodeError``."""
