"""What the streams bring, handed to the application; every message is done once it returns."""

from __future__ import annotations

from collections.abc import Sequence

from cdi.event.v1 import rejected_event_pb2
from cdi.identity.v1 import profile_pb2
from cdi_kernel import topology
from cdi_kernel.envelope import SOURCE_SEQUENCE
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Done, Message, Outcome, ReaderSpec
from cdi_warehouse_loader.application.loading import Loading
from cdi_warehouse_loader.domain.batches import Batch
from cdi_warehouse_loader.domain.event_view import BatchView, read_batch
from cdi_warehouse_loader.domain.load_size import LoadSize

_CHANGED = topology.identity("changed")
_GRAPH_MESSAGES = 8


class Consumer:
    """Handlers of the three streams."""

    def __init__(self, loading: Loading) -> None:
        self._loading = loading

    async def events(self, messages: Sequence[Message[BatchView]]) -> Sequence[Outcome]:
        """ENRICHED: rows, position and counts in one commit."""
        await self._loading.events(
            [Batch(m.partition, m.sequence, int(m.headers.get(SOURCE_SEQUENCE, "0")), m.body.events) for m in messages]
        )
        return [Done()] * len(messages)

    async def rejected(self, messages: Sequence[Message[rejected_event_pb2.RejectedBatch]]) -> Sequence[Outcome]:
        """REJECTED: one row per rejection id."""
        await self._loading.rejected([Batch(m.partition, m.sequence, 0, m.body.events) for m in messages])
        return [Done()] * len(messages)

    async def identity(self, messages: Sequence[Message[bytes]]) -> Sequence[Outcome]:
        """IDENTITY: changes of the graph; other kinds are not for the warehouse."""
        changes = [(m, profile_pb2.GraphChanged.FromString(m.body)) for m in messages if m.subject == _CHANGED]
        await self._loading.changes([Batch(m.partition, m.sequence, 0, [changed]) for m, changed in changes])
        return [Done()] * len(messages)


def events_spec(service: str, reader: str, partitions: int, enough: int, size: LoadSize, linger_seconds: float) -> ReaderSpec[BatchView]:
    """All owned partitions in one lane: one commit holds all that has arrived."""
    return ReaderSpec(
        service,
        reader,
        StreamName.ENRICHED,
        read_batch,
        partitions,
        lanes=1,
        max_events=enough,
        linger_seconds=linger_seconds,
        most_now=size.now,
    )


def rejected_spec(service: str, reader: str, linger_seconds: float) -> ReaderSpec[rejected_event_pb2.RejectedBatch]:
    """The whole stream."""
    decode = rejected_event_pb2.RejectedBatch.FromString
    return ReaderSpec(service, reader, StreamName.REJECTED, decode, None, linger_seconds=linger_seconds)


def identity_spec(service: str, reader: str, linger_seconds: float) -> ReaderSpec[bytes]:
    """The whole stream, undecoded: the subject says what a message is. Few at a time: one may hold a quarter of a MiB of changes."""
    return ReaderSpec(service, reader, StreamName.IDENTITY, bytes, None, max_events=_GRAPH_MESSAGES, linger_seconds=linger_seconds)
