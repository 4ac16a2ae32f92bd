"""Group commit to JetStream: the events of concurrent requests become few messages, and each request waits for its own only.

At most one commit is under way: a message for each partition that has events. So a partition's messages are stored in the order in
which events came, and what a commit costs is paid once for all partitions. What arrives meanwhile leaves together with the next one:
at once after the acknowledgement while requests come one by one, after a pause when they come at the same time. Requests of many events
are few, so a short pause gathers little for what eight messages cost: they are waited for as long as they keep coming, within limits.
Deliberately absent: retries. What the outlet did not take is the client's to send again; enrichment drops what was stored after all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_collector.metrics import record_commit
from cdi_kernel import envelope, ids, topology
from cdi_kernel.faults import Unavailable
from cdi_runtime import telemetry
from cdi_runtime.bus import Outgoing

_LARGE_REQUEST: Final = 16
"""Events per request from which waiting longer for more pays."""

_LONGEST_PAUSE: Final = 4
"""Times the linger that large requests wait for each other at most."""


class Outlet(Protocol):
    """What a commit leaves through: the bus, or the bus with a spool in front of it."""

    def ready(self) -> str | None:
        """``None`` while it takes messages, else why not."""
        ...

    async def publish_all(self, messages: Sequence[Outgoing]) -> object:
        """Returns when all messages are durable, those of a subject in the order given; raises ``Unavailable`` otherwise."""
        ...


class _Gathered:
    """What leaves with the next commit.

    Attributes:
        frames: framed events by partition.
        links: traceparents of the sampled ones.
        receipts: what the requests wait for.
        events: number of framed events.
        since: when the first of them came, by the loop's clock.
    """

    __slots__ = ("events", "frames", "links", "receipts", "since")

    def __init__(self, since: float) -> None:
        self.frames: dict[int, list[bytes]] = {}
        self.links: list[str] = []
        self.receipts: list[asyncio.Future[None]] = []
        self.events = 0
        self.since = since

    def add(self, frames: Mapping[int, Sequence[bytes]], links: Mapping[int, Sequence[str]], receipt: asyncio.Future[None]) -> None:
        for partition, framed in frames.items():
            self.events += len(framed)
            known = self.frames.get(partition)
            if known is None:
                self.frames[partition] = list(framed)
            else:
                known += framed
        for traceparents in links.values():
            self.links += traceparents
        self.receipts.append(receipt)

    @property
    def is_full(self) -> bool:
        return self.events >= topology.MAX_BATCH_EVENTS

    @property
    def is_of_large_requests(self) -> bool:
        return self.events >= _LARGE_REQUEST * len(self.receipts)

    def settle(self, failure: BaseException | None) -> None:
        for receipt in self.receipts:
            if receipt.done():
                continue
            if failure is None:
                receipt.set_result(None)
            else:
                receipt.set_exception(failure)


class GroupCommit:
    """The ``EventLog`` and the ``RejectionLog`` on JetStream.

    Args:
        outlet: where commits go, one at a time.
        linger_seconds: least time between two commits when requests come at the same time, so that more of them share one; large
            requests that keep coming wait up to four times as long, unless a commit is full before.
    """

    def __init__(self, outlet: Outlet, linger_seconds: float) -> None:
        self._outlet = outlet
        self._linger = linger_seconds
        self._loop = asyncio.get_running_loop()
        self._gathered: _Gathered | None = None
        self._timer: asyncio.Handle | None = None
        self._commit: asyncio.Task[None] | None = None

    def store(self, frames: Mapping[int, Sequence[bytes]], links: Mapping[int, Sequence[str]]) -> asyncio.Future[None]:
        """See ``EventLog``."""
        receipt: asyncio.Future[None] = self._loop.create_future()
        if not frames:
            receipt.set_result(None)
            return receipt
        self._check_outlet()
        if self._gathered is None:
            self._gathered = _Gathered(self._loop.time())
        self._gathered.add(frames, links, receipt)
        if self._commit is None:
            if self._timer is None:
                # Idle: leave with whatever else comes in this turn of the loop.
                self._timer = self._loop.call_soon(self._start)
            elif self._gathered.is_full:
                self._start()
        return receipt

    async def reject(self, workspace_id: str, events: Sequence[RejectedEvent]) -> None:
        """See ``RejectionLog``."""
        self._check_outlet()
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
        await self._outlet.publish_all(messages)

    async def drain(self) -> None:
        """Returns when everything that was handed over is settled."""
        while self._gathered is not None or self._commit is not None:
            if self._commit is None:
                self._start()
            else:
                await asyncio.wait([self._commit])

    def _check_outlet(self) -> None:
        """Refuses at once what would be refused later: a disk that is full is not tried for every request."""
        if (reason := self._outlet.ready()) is not None:
            raise Unavailable("nats", reason, retry_after=1.0)

    def _pause(self, waiting: _Gathered, seconds: float, deadline: float) -> None:
        """Lets requests gather, and looks again as long as large ones keep coming, until the deadline."""
        seen = len(waiting.receipts)

        def look() -> None:
            now = self._loop.time()
            if waiting.is_of_large_requests and len(waiting.receipts) > seen and now < deadline:
                self._pause(waiting, min(self._linger / 2, deadline - now), deadline)
            else:
                self._start()

        self._timer = self._loop.call_later(seconds, look)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            return
        crowded = len(gathered.receipts) > 1
        started = self._loop.time() if crowded else -math.inf
        self._commit = self._loop.create_task(self._send(gathered))
        self._commit.add_done_callback(lambda task: self._finished(task, gathered, started))

    async def _send(self, gathered: _Gathered) -> None:
        attributes: dict[str, AttributeValue] = {"messaging.system": "nats", "messaging.batch.message_count": gathered.events}
        with telemetry.batch_span("collect batch", SpanKind.PRODUCER, gathered.links, attributes) as span:
            headers = {envelope.SCHEMA: envelope.EVENT_BATCH_SCHEMA}
            if traceparent := telemetry.traceparent_of(span):
                headers[envelope.TRACEPARENT] = traceparent
            messages = [
                Outgoing(topology.collected(partition), packed.payload, str(ids.uuid7()), {**headers, envelope.EVENTS: str(packed.events)})
                for partition, frames in gathered.frames.items()
                for packed in envelope.pack(frames)
            ]
            await self._outlet.publish_all(messages)
        record_commit(gathered.events, self._loop.time() - gathered.since)

    def _finished(self, task: asyncio.Task[None], gathered: _Gathered, started: float) -> None:
        self._commit = None
        gathered.settle(Unavailable("nats", "the collector is stopping") if task.cancelled() else task.exception())
        if self._gathered is None:
            return
        if self._gathered.is_full:
            self._timer = self._loop.call_soon(self._start)
        else:
            self._pause(self._gathered, started + self._linger - self._loop.time(), started + _LONGEST_PAUSE * self._linger)
