"""Which events of a request are traced, and their ``collect`` spans."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from cdi_collector.domain.limits import MAX_TRACED_EVENTS
from cdi_runtime import telemetry


class Sampler:
    """Head sampling of every n-th event on average, for the price of one comparison per request.

    The gap to the next sampled event is drawn from the geometric distribution, which is what drawing for each event comes to.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._gap = self._draw()

    def pick(self, events: int, traceparent: str) -> Sequence[int]:
        """Indexes of the events to trace: as the caller decided, else by ratio.

        Args:
            events: number of events in the request.
            traceparent: the caller's, or empty.
        """
        if traceparent:
            return range(min(events, MAX_TRACED_EVENTS)) if telemetry.is_sampled(traceparent) else ()
        if self._gap >= events:
            self._gap -= events
            return ()
        picked: list[int] = []
        while self._gap < events:
            picked.append(int(self._gap))
            self._gap += 1 + self._draw()
        self._gap -= events
        return picked[:MAX_TRACED_EVENTS]

    def _draw(self) -> float:
        if self._ratio <= 0.0:
            return math.inf
        if self._ratio >= 1.0:
            return 0
        return math.floor(math.log(1.0 - random.random()) / math.log(1.0 - self._ratio))


class CollectSpans:
    """The ``collect`` spans of the traced events of one request, until ``end`` is called."""

    def __init__(self, indexes: Sequence[int], caller: str, received_us: int) -> None:
        self._spans: Mapping[int, Span] = {
            index: telemetry.event_span("collect", caller, start_time_ns=received_us * 1_000, kind=SpanKind.PRODUCER) for index in indexes
        }

    @property
    def traceparents(self) -> Mapping[int, str]:
        """What the traced events carry, by index."""
        return {index: made for index, span in self._spans.items() if (made := telemetry.traceparent_of(span))}

    def describe(self, message_ids: Sequence[str]) -> None:
        """Names the events on their spans."""
        for index, span in self._spans.items():
            span.set_attribute("cdi.message_id", message_ids[index])

    def end(self, *, failed: bool) -> None:
        """Ends the spans with the outcome of their request."""
        for span in self._spans.values():
            if failed:
                span.set_status(Status(StatusCode.ERROR))
            span.end()
