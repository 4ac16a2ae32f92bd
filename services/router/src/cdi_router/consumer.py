"""ENRICHED in: the messages of a lane, partition by partition, and how each is settled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

from opentelemetry.trace import SpanKind

from cdi.event.v1.event_pb2 import EventBatch
from cdi_kernel.envelope import SOURCE_SEQUENCE
from cdi_router.application.live import Arrival, Held, LiveDelivery
from cdi_router.metrics import Observer
from cdi_runtime.bus import Done, Message, Outcome, Retry
from cdi_runtime.telemetry import batch_span

Batch = Sequence[Message[EventBatch]]


class Consumer:
    """The reader of one destination."""

    def __init__(self, live: LiveDelivery, observer: Observer) -> None:
        self._live = live
        self._observer = observer

    async def handle(self, messages: Batch) -> Sequence[Outcome]:
        """One outcome per message; the messages of a partition share theirs, because they are settled by one transaction."""
        outcomes: dict[int, Outcome] = {}
        for partition, group in groupby(sorted(messages, key=lambda m: (m.partition, m.sequence)), key=lambda m: m.partition):
            outcomes[partition] = await self._partition(partition, list(group))
        return [outcomes[message.partition] for message in messages]

    async def _partition(self, partition: int, messages: Batch) -> Outcome:
        started = time.time_ns()
        arrivals = [Arrival(message.sequence, int(message.headers.get(SOURCE_SEQUENCE, "0")), message.body.events) for message in messages]
        links = (event.traceparent for arrival in arrivals for event in arrival.events)
        with batch_span("deliver batch", SpanKind.CONSUMER, links, {"cdi.partition": partition, "cdi.messages": len(messages)}):
            ended = await self._live.deliver(partition, arrivals)
        if isinstance(ended, Held):
            return Retry(ended.seconds, ended.reason)
        self._observer.settled(ended, started)
        return Done()


async def hold(messages: Batch) -> Sequence[Outcome]:
    """Settles nothing: for a destination that is only to be given its place in the stream."""
    return [Retry(1.0, "the destination is disabled")] * len(messages)
