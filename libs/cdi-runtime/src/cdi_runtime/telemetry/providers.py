"""Where spans and metrics go: OTLP when an endpoint is named, Prometheus text always, nowhere otherwise.

There are two tracers over one exporter. ``tracer()`` follows its parent and samples roots by ratio: RPCs, transactions. The
tracer behind ``event_span`` and ``batch_span`` records whatever it is given, since the choice was made where the event entered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import psutil
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from prometheus_client import CollectorRegistry, generate_latest

from cdi_runtime.telemetry import instruments

SCOPE = "cdi"
_LAST_SECONDS = 3.0


class _State:
    """What ``configure`` made. Before it, and without an endpoint, every span is a non-recording one."""

    by_ratio: trace.Tracer = trace.NoOpTracer()
    chosen: trace.Tracer = trace.NoOpTracer()
    ratio: float = 0.0
    processor: SpanProcessor | None = None
    meters: MeterProvider | None = None
    prometheus: CollectorRegistry | None = None


def configure(service: str, instance: str, sample_ratio: float, *, exporter: SpanExporter | None = None) -> None:
    """Sets up the process once, before the first span or metric.

    Args:
        service: the public service name, ``service.name``.
        instance: the id of this process, ``service.instance.id``.
        sample_ratio: share of undecided events and of RPCs without a caller's context to trace, 0 to 1.
        exporter: for tests; otherwise OTLP over gRPC when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.
    """
    resource = Resource.create({"service.name": service, "service.namespace": "cdi", "service.instance.id": instance})
    _configure_metrics(resource)
    exporter = exporter or _otlp_spans()
    if exporter is not None:
        _configure_traces(resource, exporter, sample_ratio)


def tracer() -> trace.Tracer:
    """The tracer for spans around RPCs and transactions: parent-based, roots by ratio."""
    return _State.by_ratio


def chosen_tracer() -> trace.Tracer:
    """The tracer for events and batches that were chosen already."""
    return _State.chosen


def sample_ratio() -> float:
    """The head sampling ratio in force; 0 when no exporter is configured."""
    return _State.ratio


def exporting() -> bool:
    """Whether spans go anywhere."""
    return _State.processor is not None


def prometheus_text() -> bytes:
    """Every metric in Prometheus text format; empty before ``configure``."""
    return generate_latest(_State.prometheus) if _State.prometheus is not None else b""


def flush() -> None:
    """Sends the spans that wait for their batch."""
    if _State.processor is not None:
        _State.processor.force_flush(int(_LAST_SECONDS * 1000))


def shut_down() -> None:
    """Sends what waits and closes the exporters, within three seconds; spans and metrics afterwards go nowhere."""
    processor, meters = _State.processor, _State.meters
    _State.by_ratio = _State.chosen = trace.NoOpTracer()
    _State.ratio, _State.processor, _State.meters, _State.prometheus = 0.0, None, None, None

    def close() -> None:
        if processor is not None:
            processor.shutdown()
        if meters is not None:
            meters.shutdown()

    # The exporters retry for longer than a service may take to end when their backend is away.
    closing = threading.Thread(target=close, name="telemetry-shutdown", daemon=True)
    closing.start()
    closing.join(_LAST_SECONDS)


def _otlp_spans() -> SpanExporter | None:
    if not _endpoint("TRACES"):
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _configure_traces(resource: Resource, exporter: SpanExporter, ratio: float) -> None:
    processor = BatchSpanProcessor(exporter)
    by_ratio = TracerProvider(ParentBased(TraceIdRatioBased(ratio)), resource, shutdown_on_exit=False)
    all_of_them = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    by_ratio.add_span_processor(processor)
    all_of_them.add_span_processor(processor)
    _State.by_ratio, _State.chosen = by_ratio.get_tracer(SCOPE), all_of_them.get_tracer(SCOPE)
    _State.ratio, _State.processor = ratio, processor


def _configure_metrics(resource: Resource) -> None:
    registry = CollectorRegistry()
    readers: list[MetricReader] = [PrometheusMetricReader(registry=registry, scope_info_enabled=False)]
    if _endpoint("METRICS") and os.environ.get("OTEL_METRICS_EXPORTER") == "otlp":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    views = [
        View(instrument_name=described.name, aggregation=ExplicitBucketHistogramAggregation(described.buckets))
        for described in instruments.REGISTRY.values()
        if described.buckets
    ]
    provider = MeterProvider(readers, resource, shutdown_on_exit=False, views=views)
    instruments.attach(provider.get_meter(SCOPE), _resident_memory)
    _State.meters, _State.prometheus = provider, registry


def _resident_memory(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    return (metrics.Observation(psutil.Process().memory_info().rss),)


def _endpoint(signal: str) -> str:
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    return os.environ.get(name.replace("OTLP_", f"OTLP_{signal}_")) or os.environ.get(name) or ""
