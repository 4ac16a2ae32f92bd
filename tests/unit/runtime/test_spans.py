"""Spans of batches and of sampled events: who is whose parent, and what costs nothing."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from cdi_runtime import telemetry
from cdi_runtime.telemetry import batch_span, chosen, event_span, instruments, providers, traceparent_of

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    memory = InMemorySpanExporter()
    telemetry.configure("example", "i1", 1.0, exporter=memory)
    yield memory
    telemetry.shut_down()


def finished(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    providers.flush()
    return list(exporter.get_finished_spans())


def test_an_event_span_continues_the_callers_trace(exporter: InMemorySpanExporter) -> None:
    span = event_span("collect", SAMPLED, attributes={"messaging.message.id": "m1"}, start_time_ns=1_000)
    following = traceparent_of(span)
    span.end(2_000)
    event_span("enrich", following).end()
    collect, enrich = finished(exporter)
    assert collect.parent is not None
    assert f"{collect.parent.span_id:016x}" == "b7ad6b7169203331"
    assert collect.start_time == 1_000
    assert collect.resource.attributes["service.name"] == "example"
    assert enrich.parent is not None
    assert enrich.parent.span_id == collect.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in (collect, enrich)} == {SAMPLED[3:35]}


def test_an_event_without_a_caller_starts_a_trace(exporter: InMemorySpanExporter) -> None:
    event_span("collect", "").end()
    assert finished(exporter)[0].parent is None


def test_an_unsampled_event_is_not_recorded_and_stays_unsampled(exporter: InMemorySpanExporter) -> None:
    span = event_span("collect", UNSAMPLED)
    assert traceparent_of(span) == ""
    span.end()
    assert finished(exporter) == []


def test_a_batch_links_to_its_sampled_events_and_is_current(exporter: InMemorySpanExporter) -> None:
    with batch_span("enrich batch", SpanKind.CONSUMER, ["", UNSAMPLED, SAMPLED], {"messaging.batch.message_count": 3}):
        assert trace.get_current_span().is_recording()
    (span,) = finished(exporter)
    assert span.parent is None
    assert [f"{link.context.span_id:016x}" for link in span.links] == ["b7ad6b7169203331"]


def test_a_batch_without_sampled_events_is_not_recorded(exporter: InMemorySpanExporter) -> None:
    with batch_span("enrich batch", SpanKind.CONSUMER, ["", UNSAMPLED]) as span:
        assert not span.is_recording()
    assert finished(exporter) == []


def test_a_batch_keeps_at_most_128_links(exporter: InMemorySpanExporter) -> None:
    with batch_span("enrich batch", SpanKind.CONSUMER, [SAMPLED] * 500):
        pass
    assert len(finished(exporter)[0].links) == 128


def test_an_exception_marks_the_batch_without_its_text(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="someone"), batch_span("b", SpanKind.CONSUMER, [SAMPLED]):
        raise ValueError("someone@example.com")
    (span,) = finished(exporter)
    assert not span.status.is_ok
    assert "someone" not in span.to_json()


@pytest.mark.parametrize(("traceparent", "expected"), [(SAMPLED, True), (UNSAMPLED, False), ("", True), ("rubbish", False)])
def test_the_caller_decides_first(exporter: InMemorySpanExporter, traceparent: str, expected: bool) -> None:
    assert chosen(traceparent) is expected


def test_without_an_exporter_nothing_is_chosen_and_a_callers_context_passes_through() -> None:
    assert not chosen("")
    assert traceparent_of(event_span("collect", SAMPLED)) == SAMPLED
    assert traceparent_of(event_span("collect", "")) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        SAMPLED + "0",
    ],
)
def test_a_malformed_traceparent_is_not_sampled(wrong: str) -> None:
    assert not telemetry.is_sampled(wrong)


def test_metrics_appear_as_prometheus_text(exporter: InMemorySpanExporter) -> None:
    instruments.EVENTS_REJECTED.add(3, stage="enrich", reason="schema_violation")
    instruments.STAGE_DURATION.record(0.02, stage="enrich")
    text = telemetry.prometheus_text().decode()
    assert 'cdi_events_rejected_total{reason="schema_violation",stage="enrich"} 3.0' in text
    assert 'cdi_stage_duration_seconds_bucket{le="0.025",stage="enrich"} 1.0' in text
    assert "cdi_process_resident_memory_bytes" in text
