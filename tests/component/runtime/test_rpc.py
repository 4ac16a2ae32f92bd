"""gRPC between a real server and a real channel: faults, bugs, health, reflection, spans."""

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from cdi.collector.v1 import collector_service_pb2, collector_service_pb2_grpc
from cdi.consent.v1 import consent_service_pb2, consent_service_pb2_grpc
from cdi.error.v1 import error_pb2
from cdi_kernel import faults
from cdi_runtime import telemetry
from cdi_runtime.rpc import Registration, call, channel, serve
from cdi_runtime.service import ServiceContext
from cdi_runtime.telemetry import batch_span, providers
from cdi_testing import eventually

CONSENT = consent_service_pb2.DESCRIPTOR.services_by_name["ConsentService"].full_name
COLLECTOR = collector_service_pb2.DESCRIPTOR.services_by_name["CollectorService"].full_name
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class ExampleConsent(consent_service_pb2_grpc.ConsentServiceServicer):
    async def EvaluateConsent(self, request, context):
        return consent_service_pb2.EvaluateConsentResponse()

    async def ApplyPurpose(self, request, context):
        raise faults.InvalidArgument("wrong purpose", field_violations=[("purpose.name", "is empty")])

    async def ListPurposes(self, request, context):
        raise KeyError("someone@example.com")


class ExampleCollector(collector_service_pb2_grpc.CollectorServiceServicer):
    async def StreamEvents(self, request_iterator, context):
        async for _ in request_iterator:
            yield collector_service_pb2.StreamEventsResponse()
        raise faults.RateLimited(error_pb2.ERROR_REASON_RATE_LIMITED, "enough", retry_after=2.0)


@pytest.fixture
async def context() -> ServiceContext:
    return ServiceContext("example")


@pytest.fixture
async def address(context: ServiceContext) -> AsyncIterator[str]:
    async with serve(
        context,
        "127.0.0.1:0",
        Registration(consent_service_pb2_grpc.add_ConsentServiceServicer_to_server, ExampleConsent(), CONSENT),
        Registration(collector_service_pb2_grpc.add_CollectorServiceServicer_to_server, ExampleCollector(), COLLECTOR),
    ) as bound:
        yield bound


@pytest.fixture
async def peer(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with channel(address) as made:
        yield made


async def test_an_answer_comes_back(peer: grpc.aio.Channel) -> None:
    stub = consent_service_pb2_grpc.ConsentServiceStub(peer)
    answer = await call(stub.EvaluateConsent, consent_service_pb2.EvaluateConsentRequest(), timeout=5)
    assert isinstance(answer, consent_service_pb2.EvaluateConsentResponse)


async def test_a_fault_arrives_as_the_same_fault(peer: grpc.aio.Channel) -> None:
    stub = consent_service_pb2_grpc.ConsentServiceStub(peer)
    with pytest.raises(faults.InvalidArgument) as caught:
        await call(stub.ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(), timeout=5)
    assert caught.value.field_violations == (("purpose.name", "is empty"),)


async def test_a_bug_is_internal_with_a_correlation_id_and_no_text(peer: grpc.aio.Channel) -> None:
    stub = consent_service_pb2_grpc.ConsentServiceStub(peer)
    with pytest.raises(faults.Internal) as caught:
        await call(stub.ListPurposes, consent_service_pb2.ListPurposesRequest(), timeout=5)
    assert caught.value.message == "internal error"
    assert len(caught.value.metadata["correlation_id"]) == 16


async def test_a_fault_ends_a_stream_after_its_answers(peer: grpc.aio.Channel) -> None:
    stub = collector_service_pb2_grpc.CollectorServiceStub(peer)
    stream = stub.StreamEvents()
    await stream.write(collector_service_pb2.StreamEventsRequest())
    assert await stream.read() != grpc.aio.EOF
    await stream.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_there_is_retryable() -> None:
    async with channel("127.0.0.1:1") as nobody:
        stub = consent_service_pb2_grpc.ConsentServiceStub(nobody)
        with pytest.raises(faults.Unavailable) as caught:
            await call(stub.EvaluateConsent, consent_service_pb2.EvaluateConsentRequest(), timeout=2, peer="consent")
    assert caught.value.metadata == {"dependency": "consent"}


async def test_health_follows_readiness(context: ServiceContext, peer: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(peer)

    async def overall(expected: int) -> bool:
        return (await health.Check(health_pb2.HealthCheckRequest())).status == expected

    await eventually(lambda: overall(health_pb2.HealthCheckResponse.SERVING))
    context.readiness.add("database", lambda: "away")
    await eventually(lambda: overall(health_pb2.HealthCheckResponse.NOT_SERVING))
    named = await health.Check(health_pb2.HealthCheckRequest(service=CONSENT))
    assert named.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(peer: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(peer)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]
    assert {CONSENT, COLLECTOR} <= {service.name for service in answers[0].list_services_response.service}


async def test_an_address_in_use_is_said(context: ServiceContext, address: str) -> None:
    with pytest.raises(faults.Unavailable, match="cannot listen"):
        async with serve(context, address):
            pass


async def test_a_traced_batch_spans_both_sides(peer: grpc.aio.Channel) -> None:
    exporter = InMemorySpanExporter()
    telemetry.configure("example", "i1", 0.0, exporter=exporter)
    try:
        stub = consent_service_pb2_grpc.ConsentServiceStub(peer)
        request = consent_service_pb2.EvaluateConsentRequest()
        await call(stub.EvaluateConsent, request, timeout=5)
        with batch_span("enrich batch", SpanKind.CONSUMER, [SAMPLED]):
            await call(stub.EvaluateConsent, request, timeout=5)
        with pytest.raises(faults.Internal), batch_span("enrich batch", SpanKind.CONSUMER, [SAMPLED]):
            await call(stub.ListPurposes, consent_service_pb2.ListPurposesRequest(), timeout=5)
        await eventually(lambda: providers.flush() is None and len(exporter.get_finished_spans()) == 6)
    finally:
        telemetry.shut_down()
    spans = exporter.get_finished_spans()
    batch, failed_batch = (span for span in spans if span.name == "enrich batch")
    for one, ok in ((batch, True), (failed_batch, False)):
        (client,) = (span for span in spans if span.parent and span.parent.span_id == one.context.span_id)
        (server,) = (span for span in spans if span.parent and span.parent.span_id == client.context.span_id)
        assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
        assert {client.status.is_ok, server.status.is_ok} == {ok}
    assert not trace.get_current_span().is_recording()
