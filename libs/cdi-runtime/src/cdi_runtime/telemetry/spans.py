"""Spans of batches and of the few sampled events inside them.

Whether an event is traced is chosen once, where it enters (``chosen``), and travels as its ``traceparent``: empty means no.
``chosen`` costs a fraction of a microsecond; a stage calls ``event_span`` only for events that carry a ``traceparent``.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from cdi_runtime.telemetry import providers

MAX_LINKS = 128
_LENGTH = 55
_NO_PARENT = otel_context.Context()


def chosen(traceparent: str) -> bool:
    """Whether an event that enters is traced: as its caller decided, otherwise by the sampling ratio.

    Args:
        traceparent: the caller's W3C ``traceparent``, or an empty string.
    """
    if traceparent:
        return is_sampled(traceparent)
    ratio = providers.sample_ratio()
    return ratio > 0.0 and random.random() < ratio


def is_sampled(traceparent: str) -> bool:
    """Whether a ``traceparent`` says sampled. Malformed ones do not."""
    context = parse(traceparent)
    return context is not None and context.trace_flags.sampled


def event_span(
    name: str,
    traceparent: str,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    start_time_ns: int | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Span:
    """Starts the span of one chosen event; the caller ends it (``span.end(end_time)`` or ``with``).

    Args:
        name: ``collect``, ``enrich``, ``deliver <destination>``, ``load``.
        traceparent: the span's parent; empty starts a new trace.
        attributes: message ids are allowed here, event content is not.
        start_time_ns: Unix time of the start if it lies in the past.
        kind: PRODUCER or CONSUMER where the event crosses the bus.

    Returns:
        A recording span, or a non-recording one when the parent is not sampled or no exporter is configured.
    """
    parent = parse(traceparent)
    above = _NO_PARENT
    if parent is not None:
        if not parent.trace_flags.sampled or not providers.exporting():
            return NonRecordingSpan(parent)
        above = trace.set_span_in_context(NonRecordingSpan(parent), _NO_PARENT)
    return providers.chosen_tracer().start_span(
        name,
        above,
        kind,
        attributes,
        start_time=start_time_ns,
        record_exception=False,
        set_status_on_exception=False,
    )


def traceparent_of(span: Span) -> str:
    """The W3C ``traceparent`` that makes ``span`` the parent of what comes next; empty when it is not sampled."""
    context = span.get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


@contextlib.contextmanager
def batch_span(
    name: str,
    kind: SpanKind,
    links: Iterable[str],
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span]:
    """The span of a whole batch, current inside the block, linked to the sampled events in it.

    A batch without a sampled event is not recorded, and neither are the RPCs and transactions inside it.

    Args:
        name: ``enrich batch``, ``load batch``.
        kind: CONSUMER for a batch from the bus.
        links: traceparents of the events; empty and unsampled ones are passed over, at most 128 are kept.
        attributes: sizes, partition, stream.
    """
    contexts = (context for context in map(parse, filter(None, links)) if context is not None)
    linked = [Link(context) for context in islice((c for c in contexts if c.trace_flags.sampled), MAX_LINKS)]
    if not linked:
        yield trace.INVALID_SPAN
        return
    with active(providers.chosen_tracer().start_span(name, _NO_PARENT, kind, attributes, linked)) as span:
        yield span


@contextlib.contextmanager
def active(span: Span) -> Iterator[Span]:
    """Makes a span current for the block and ends it. Of an exception it keeps the type only: the text can quote an event."""
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
            raise


def parse(traceparent: str) -> SpanContext | None:
    """A W3C ``traceparent`` (https://www.w3.org/TR/trace-context/#traceparent-header), or ``None`` if it is not one."""
    if len(traceparent) < _LENGTH or (len(traceparent) > _LENGTH and traceparent[:2] == "00"):
        return None
    try:
        context = SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), True, TraceFlags(int(traceparent[53:55], 16)))
    except ValueError:
        return None
    dashes = traceparent[2] + traceparent[35] + traceparent[52]
    return context if context.is_valid and dashes == "---" and traceparent[:2] != "ff" else None
