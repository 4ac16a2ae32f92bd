"""Around every RPC of our servicers: a SERVER span, the duration metric, and the one place where a fault becomes a status."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, Internal
from cdi_runtime.rpc.status import DETAILS_KEY, status_of
from cdi_runtime.telemetry import instruments, logger, tracer
from cdi_runtime.telemetry.spans import parse

Handler = Any
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behaviour = Callable[[Any, Context], Any]
Guard = Callable[[Context], None]

_FOREIGN = ("grpc.health.", "grpc.reflection.")
_SERVER_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"})

log = logger(__name__)


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps each method once and keeps the wrapped handler.

    Args:
        guards: what looks at the calls of a service first, by its full name; that of one method, by ``service/method``, comes before.
    """

    def __init__(self, guards: Mapping[str, Guard]) -> None:
        self._guards = guards
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        wrapped = self._handlers.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(details)
        method = details.method.lstrip("/")
        if handler is None or method.startswith(_FOREIGN):
            return handler
        guard = self._guards.get(method) or self._guards.get(method.partition("/")[0], passes)
        self._handlers[details.method] = wrapped = _wrap(handler, method, guard)
        return wrapped


def passes(_: Context) -> None:
    """The guard of what has none."""


def _wrap(handler: Handler, method: str, guard: Guard) -> Handler:
    coders = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(_answering(handler.unary_unary, method, guard), **coders)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(_answering(handler.stream_unary, method, guard), **coders)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(_streaming(handler.unary_stream, method, guard), **coders)
    return grpc.stream_stream_rpc_method_handler(_streaming(handler.stream_stream, method, guard), **coders)


def _answering(behaviour: Behaviour, method: str, guard: Guard) -> Behaviour:
    async def answer(request: Any, context: Context) -> Any:
        with _Observed(method, context) as observed:
            try:
                guard(context)
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the outermost catch of an RPC
                await _abort(context, error, observed)

    return answer


def _streaming(behaviour: Behaviour, method: str, guard: Guard) -> Behaviour:
    if not inspect.isasyncgenfunction(behaviour):
        return _answering(behaviour, method, guard)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        with _Observed(method, context) as observed:
            try:
                guard(context)
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001 - the outermost catch of an RPC
                await _abort(context, error, observed)

    return stream


class _Observed:
    """A running RPC: its span, and at the end of the block its duration and its code.

    A class, because a generator as a context manager costs as much as the rest of it.
    """

    __slots__ = ("_started", "_token", "code", "method", "span")

    def __init__(self, method: str, context: Context) -> None:
        self.method = method
        self.code = "OK"
        self._started = time.perf_counter()
        self.span = span = _span(method, context)
        self._token = otel_context.attach(trace.set_span_in_context(span)) if span.is_recording() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, GeneratorExit):
            self.code = "CANCELLED"
        instruments.RPC_SERVER_DURATION.record(time.perf_counter() - self._started, method=self.method, code=self.code)
        if self._token is not None:
            otel_context.detach(self._token)
            self.span.set_attribute("rpc.response.status_code", self.code)
            if self.code in _SERVER_FAULTS:
                self.span.set_status(Status(StatusCode.ERROR))
            self.span.end()


def _span(method: str, context: Context) -> Span:
    """The span of this RPC: below the caller's if that is sampled, none if it is not, by ratio if there is no caller's."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and (parent := parse(str(value))) is not None:
            if not parent.trace_flags.sampled:
                return trace.INVALID_SPAN
            above = trace.set_span_in_context(NonRecordingSpan(parent))
            return tracer().start_span(method, above, SpanKind.SERVER, attributes)
    return tracer().start_span(method, otel_context.Context(), SpanKind.SERVER, attributes)


async def _abort(context: Context, error: Exception, observed: _Observed) -> NoReturn:
    """Ends the RPC with the status of a fault. Anything else is a bug: fixed text outside, the rest in the log."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, Fault):
        fault: Fault = error
        log.debug("rpc.refused", method=observed.method, code=fault.code, reason=fault.reason_name)
    else:
        correlation_id = secrets.token_hex(8)
        log.error("rpc.failed", method=observed.method, correlation_id=correlation_id, exc_info=error)
        fault = Internal(error_pb2.ERROR_REASON_INTERNAL, "internal error", metadata={"correlation_id": correlation_id})
    observed.code = fault.code
    status = status_of(fault)
    await context.abort(grpc.StatusCode[fault.code], fault.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returned")
