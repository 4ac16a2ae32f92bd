"""The receiver of spans with the real exporter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cdi_cli.traces import SpanReceiver, SpanStore, StoredSpan


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[SpanReceiver]:
    receiver = SpanReceiver(tmp_path / "spans.sqlite")
    receiver.start()
    yield receiver
    receiver.stop()
    receiver.store.close()


@pytest.fixture
def tracer(receiver: SpanReceiver) -> Iterator[trace.Tracer]:
    provider = TracerProvider(resource=Resource.create({"service.name": "enrichment"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://{receiver.address}")))
    yield provider.get_tracer("test")
    provider.shutdown()


def test_a_trace_is_found_by_the_message_id_of_one_of_its_spans(receiver: SpanReceiver, tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("enrich", attributes={"cdi.message_id": "m-1", "cdi.partition": 3}) as parent:
        with tracer.start_as_current_span("ResolveIdentities", kind=trace.SpanKind.CLIENT):
            pass
        link = trace.Link(parent.get_span_context())
    with tracer.start_as_current_span("enrich batch", links=[link]):
        pass
    with tracer.start_as_current_span("collect", attributes={"cdi.message_id": "m-2"}):
        pass

    enrich, resolve = receiver.store.of_message("m-1")
    assert (enrich.service, enrich.name, enrich.message_id, enrich.attributes["cdi.partition"]) == ("enrichment", "enrich", "m-1", 3)
    assert (resolve.parent_span_id, resolve.kind) == (enrich.span_id, "client")
    assert enrich.start_ns <= resolve.start_ns <= resolve.end_ns <= enrich.end_ns
    (batch,) = receiver.store.linking_to(enrich.trace_id)
    assert (batch.name, batch.links[0].span_id) == ("enrich batch", enrich.span_id)
    assert receiver.store.traced_messages() == ["m-2", "m-1"]
    assert receiver.store.of_message("m-3") == []


def test_the_receiver_keeps_its_address_and_its_spans_over_a_restart(receiver: SpanReceiver, tracer: trace.Tracer) -> None:
    address = receiver.address
    with tracer.start_as_current_span("before"):
        pass
    receiver.stop()
    receiver.start()
    assert receiver.address == address
    with tracer.start_as_current_span("after"):
        pass
    assert receiver.store.count() == 2


def stored(number: int) -> StoredSpan:
    return StoredSpan(f"t{number}", f"s{number}", "", "router", "deliver", "internal", number, number, False, {"cdi.message_id": "m"}, ())


def test_only_the_newest_spans_are_kept_and_none_twice(tmp_path: Path) -> None:
    store = SpanStore(tmp_path / "spans.sqlite", max_spans=10)
    for number in range(40):
        store.add([stored(number), stored(number)])
    assert 10 <= store.count() < 20
    assert store.of_message("m")[-1] == stored(39)
    other_process = SpanStore(tmp_path / "spans.sqlite")
    assert other_process.count() == store.count()
    other_process.close()
    store.close()
