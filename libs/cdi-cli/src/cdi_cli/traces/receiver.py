"""An OTLP/gRPC receiver of spans on a free port of 127.0.0.1, inside this process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from cdi_cli.traces.span import spans_in
from cdi_cli.traces.store import SpanStore

_STOP_SECONDS = 2.0


class SpanReceiver:
    """Takes spans over OTLP and keeps them in a ``SpanStore``.

    Args:
        file: the store's file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._store: SpanStore | None = None
        self._server: grpc.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """``host:port``, known after the start; kept by a second start."""
        return f"127.0.0.1:{self._port}"

    @property
    def store(self) -> SpanStore:
        """What was received. It stays readable after ``stop``.

        Raises:
            RuntimeError: the receiver was never started.
        """
        if self._store is None:
            raise RuntimeError("the receiver of spans was not started")
        return self._store

    def start(self) -> None:
        """Listen."""
        self._store = self._store or SpanStore(self._file)
        server = grpc.server(ThreadPoolExecutor(max_workers=2, thread_name_prefix="otlp"))
        server.add_generic_rpc_handlers((_handler(self._store),))
        self._port = server.add_insecure_port(self.address)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Finish what is being received and stop listening."""
        if self._server is not None:
            self._server.stop(_STOP_SECONDS).wait()
            self._server = None


def _handler(
    store: SpanStore,
) -> grpc.GenericRpcHandler[trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse]:
    """The one method of OTLP's TraceService."""

    def export(
        request: trace_service_pb2.ExportTraceServiceRequest, _: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        store.add(spans_in(request.resource_spans))
        return trace_service_pb2.ExportTraceServiceResponse()

    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("opentelemetry.proto.collector.trace.v1.TraceService", {"Export": method})
