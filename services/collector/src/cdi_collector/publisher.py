"""Group commit to JetStream: the events of concurrent requests become few messages, and each request waits for its own only.

Per partition there is at most one publish under way, so its messages are stored in the order in which events came. What arrives
meanwhile leaves together with the next one: an idle partition publishes at once, a busy one at most every few milliseconds.
Deliberately absent: retries. What was not acknowledged is the client's to send again; enrichment drops what was stored after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_collector.metrics import record_publish
from cdi_kernel import envelope, ids, topology
from cdi_kernel.faults import Unavailable
from cdi_runtime import telemetry
from cdi_runtime.bus import Bus, Outgoing


class _Receipt:
    """What one request waits for: all messages that hold its events."""

    __slots__ = ("future", "open")

    def __init__(self, lanes: int, loop: asyncio.AbstractEventLoop) -> None:
        self.open = lanes
        self.future: asyncio.Future[None] = loop.create_future()
        if not lanes:
            self.future.set_result(None)

    def settle(self, failure: BaseException | None) -> None:
        if self.future.done():
            return
        if failure is not None:
            self.future.set_exception(failure)
            return
        self.open -= 1
        if not self.open:
            self.future.set_result(None)


class _Lane:
    """One partition: what is gathered, and the publish under way."""

    def __init__(self, bus: Bus, partition: int, linger_seconds: float) -> None:
        self._bus = bus
        self._partition = partition
        self._linger = linger_seconds
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._receipts: list[_Receipt] = []
        self._links: list[str] = []
        self._timer: asyncio.Handle | None = None
        self._publish: asyncio.Task[None] | None = None
        self._next_start = 0.0
        self._oldest = 0.0

    def add(self, frames: Sequence[bytes], receipt: _Receipt, links: Sequence[str]) -> None:
        if not self._frames:
            self._oldest = self._loop.time()
        self._frames += frames
        self._links += links
        self._receipts.append(receipt)
        if self._publish is None and self._timer is None:
            # Idle: leave with whatever else comes in this turn of the loop.
            self._timer = self._loop.call_soon(self._start)

    async def drained(self) -> None:
        while self._frames or self._publish is not None:
            if self._publish is None:
                self._start()
            else:
                await asyncio.wait([self._publish])

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        frames, self._frames = self._frames, []
        receipts, self._receipts = self._receipts, []
        links, self._links = self._links, []
        self._next_start = self._loop.time() + self._linger
        self._publish = self._loop.create_task(self._send(frames, links, self._oldest))
        self._publish.add_done_callback(lambda task: self._finished(task, receipts))

    async def _send(self, frames: Sequence[bytes], links: Sequence[str], oldest: float) -> None:
        attributes: dict[str, AttributeValue] = {
            "messaging.system": "nats",
            "messaging.destination.partition.id": str(self._partition),
            "messaging.batch.message_count": len(frames),
        }
        with telemetry.batch_span("collect batch", SpanKind.PRODUCER, links, attributes) as span:
            headers = {envelope.SCHEMA: envelope.EVENT_BATCH_SCHEMA}
            if traceparent := telemetry.traceparent_of(span):
                headers[envelope.TRACEPARENT] = traceparent
            subject = topology.collected(self._partition)
            messages = [
                Outgoing(subject, packed.payload, str(ids.uuid7()), {**headers, envelope.EVENTS: str(packed.events)})
                for packed in envelope.pack(frames)
            ]
            await self._bus.publish_all(messages)
        record_publish(len(frames), self._loop.time() - oldest)

    def _finished(self, task: asyncio.Task[None], receipts: Sequence[_Receipt]) -> None:
        self._publish = None
        failure = Unavailable("nats", "the collector is stopping") if task.cancelled() else task.exception()
        for receipt in receipts:
            receipt.settle(failure)
        if self._frames:
            full = len(self._frames) >= topology.MAX_BATCH_EVENTS
            self._timer = self._loop.call_at(0.0 if full else self._next_start, self._start)


class GroupCommit:
    """The ``EventLog`` and the ``RejectionLog`` on JetStream.

    Args:
        bus: the connection.
        partitions: of the installation.
        linger_seconds: least time between two publishes of a partition, so that what comes in between shares a message.
    """

    def __init__(self, bus: Bus, partitions: int, linger_seconds: float) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._lanes = [_Lane(bus, partition, linger_seconds) for partition in range(partitions)]

    def store(self, frames: Mapping[int, Sequence[bytes]], links: Mapping[int, Sequence[str]]) -> Awaitable[None]:
        """See ``EventLog``."""
        if frames and (reason := self._bus.ready()) is not None:
            raise Unavailable("nats", reason, retry_after=1.0)
        receipt = _Receipt(len(frames), self._loop)
        for partition, framed in frames.items():
            self._lanes[partition].add(framed, receipt, links.get(partition, ()))
        return receipt.future

    async def reject(self, workspace_id: str, events: Sequence[RejectedEvent]) -> None:
        """See ``RejectionLog``."""
        subject = topology.rejected(workspace_id)
        # Field 1 of RejectedBatch is ``events`` too, so that the same framing serves.
        messages = [
            Outgoing(
                subject,
                packed.payload,
                str(ids.uuid7()),
                {envelope.SCHEMA: envelope.REJECTED_BATCH_SCHEMA, envelope.EVENTS: str(packed.events)},
            )
            for packed in envelope.pack([envelope.frame(event.SerializeToString()) for event in events])
        ]
        await self._bus.publish_all(messages)

    async def drain(self) -> None:
        """Returns when everything that was handed over is settled."""
        for lane in self._lanes:
            await lane.drained()
