"""Spans of a batch: one ``enrich`` per sampled event, and one of the batch only when it holds sampled events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from cdi_enrichment.domain.passage import Passage
from cdi_runtime.telemetry import batch_span, event_span, traceparent_of


@contextmanager
def traced(passages: Sequence[Passage]) -> Iterator[str]:
    """The spans of a batch while the block runs; each sampled passage gets the ``traceparent`` of its own.

    Yields:
        The ``traceparent`` of the batch, empty when nothing in it is sampled.
    """
    sampled = [passage for passage in passages if passage.event.traceparent]
    if not sampled:
        yield ""
        return
    spans = []
    for passage in sampled:
        of_event: dict[str, AttributeValue] = {"cdi.message_id": passage.event.message_id, "cdi.partition": passage.partition}
        span = event_span("enrich", passage.event.traceparent, attributes=of_event, kind=SpanKind.CONSUMER)
        passage.traceparent = traceparent_of(span)
        spans.append(span)
    of_batch: dict[str, AttributeValue] = {"messaging.system": "nats", "messaging.batch.message_count": len(passages)}
    try:
        with batch_span("enrich batch", SpanKind.CONSUMER, [passage.traceparent for passage in sampled], of_batch) as batch:
            yield traceparent_of(batch)
    finally:
        for span in spans:
            span.end()
