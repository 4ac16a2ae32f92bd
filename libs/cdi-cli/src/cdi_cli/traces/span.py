"""A span as the receiver keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that this one belongs with, in the same or in another trace."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One span.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_span_id: 16 hex digits; empty for a root.
        service: ``service.name`` of its resource.
        name: its name.
        kind: ``internal``, ``server``, ``client``, ``producer``, ``consumer``.
        start_ns: Unix nanoseconds.
        end_ns: Unix nanoseconds.
        error: its status is an error.
        attributes: its attributes; lists as text.
        links: linked spans.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    error: bool
    attributes: Mapping[str, Value]
    links: tuple[SpanLink, ...]

    @property
    def message_id(self) -> str:
        """The event that the span is about; empty for the span of a batch."""
        return str(self.attributes.get("cdi.message_id", ""))

    @property
    def duration_ms(self) -> float:
        """Milliseconds from start to end."""
        return (self.end_ns - self.start_ns) / 1e6


def spans_in(resource_spans: Iterable[ResourceSpans]) -> list[StoredSpan]:
    """The spans of an OTLP request."""
    spans: list[StoredSpan] = []
    for of_resource in resource_spans:
        service = str(_attributes(of_resource.resource.attributes).get("service.name", ""))
        spans += [_span(service, span) for scope in of_resource.scope_spans for span in scope.spans]
    return spans


def _span(service: str, span: Span) -> StoredSpan:
    return StoredSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        error=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        links=tuple(SpanLink(link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "int_value", "double_value", "bool_value"):
        plain: Value = getattr(value, kind)
        return plain
    if kind == "array_value":
        return ", ".join(str(_value(item)) for item in value.array_value.values)
    return ""
