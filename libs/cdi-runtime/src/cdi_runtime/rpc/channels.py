"""The calling side: one channel per peer, a deadline on every call, faults instead of gRPC's exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from cdi_runtime.rpc.status import fault_of_error
from cdi_runtime.telemetry import instruments, traceparent_of, tracer
from cdi_runtime.telemetry.spans import active

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]

Request = TypeVar("Request")
Response = TypeVar("Response")


@contextlib.asynccontextmanager
async def channel(target: str, *, token: str = "") -> AsyncIterator[grpc.aio.Channel]:
    """The channel to one peer for the time of the block; connects when first used and again by itself.

    Args:
        target: ``host:port``, or any gRPC target; several addresses behind a name are used in turn.
        token: sent with every call as ``authorization: Bearer``; empty: none is.
    """
    interceptors: list[grpc.aio.ClientInterceptor] = [cast("grpc.aio.ClientInterceptor", _ClientInterceptor(token))]
    if token:
        interceptors.append(cast("grpc.aio.ClientInterceptor", _StreamToken(token)))
    made = grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=interceptors)
    try:
        yield made
    finally:
        await made.close(grace=None)


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, timeout: float, peer: str = "peer"
) -> Response:
    """One unary call with a deadline.

    Args:
        method: a stub's method.
        request: its request message.
        timeout: seconds until the call is given up.
        peer: the service's name, for the fault.

    Raises:
        Fault: what the peer answered; ``Unavailable`` when it did not answer in time or could not be reached.
    """
    try:
        return await method(request, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        raise fault_of_error(error, peer=peer) from error


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, timeout: float, peer: str = "peer"
) -> AsyncIterator[Response]:
    """The answers of a call that gives several, as they come. Arguments and faults as for ``call``; the time is that of the whole call."""
    try:
        async for response in method(request, timeout=timeout):
            yield response
    except grpc.aio.AioRpcError as error:
        raise fault_of_error(error, peer=peer) from error


async def upload(
    method: grpc.aio.StreamUnaryMultiCallable[Request, Response], requests: AsyncIterator[Request], *, timeout: float, peer: str = "peer"
) -> Response:
    """A call that sends several messages. Arguments and faults as for ``call``; what the requests themselves raise passes through."""
    failed: list[BaseException] = []

    async def watched() -> AsyncIterator[Request]:
        try:
            async for request in requests:
                yield request
        except Exception as error:  # gRPC would show it as a cancelled call
            failed.append(error)
            raise

    try:
        return await method(watched(), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        raise failed[0] if failed else fault_of_error(error, peer=peer) from error
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise


class _StreamToken(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """The token of calls with several answers."""

    def __init__(self, token: str) -> None:
        self._added = (("authorization", f"Bearer {token}"),)

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        details = client_call_details
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._added)
        return await continuation(
            grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready), request
        )


class _ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """A CLIENT span when there is a recorded parent, its ``traceparent`` for the server, and the duration metric."""

    def __init__(self, token: str) -> None:
        self._added = (("authorization", f"Bearer {token}"),) if token else ()

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        details = client_call_details
        if self._added:
            metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._added)
            details = grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)
        method = _name(details.method)
        parent = trace.get_current_span()
        started = time.perf_counter()
        if not parent.is_recording():
            made = await continuation(details, request)
            code = await _code(made)
        else:
            made, code = await self._traced(continuation, details, request, method)
        instruments.RPC_CLIENT_DURATION.record(time.perf_counter() - started, method=method, code=code.name)
        return made

    async def _traced(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any, method: str
    ) -> tuple[Any, grpc.StatusCode]:
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        with active(tracer().start_span(method, kind=SpanKind.CLIENT, attributes=attributes)) as span:
            metadata = grpc.aio.Metadata(*(details.metadata or ()))
            metadata.add("traceparent", traceparent_of(span))
            traced = grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)
            made = await continuation(traced, request)
            code = await _code(made)
            span.set_attribute("rpc.response.status_code", code.name)
            if code is not grpc.StatusCode.OK:
                span.set_status(Status(StatusCode.ERROR))
            return made, code


async def _code(made: Any) -> grpc.StatusCode:
    """Waits for the end of a call; when the waiting is cancelled, so is the call."""
    try:
        code: grpc.StatusCode = await made.code()
    except asyncio.CancelledError:
        made.cancel()
        raise
    return code


def _name(method: str | bytes) -> str:
    return (method.decode() if isinstance(method, bytes) else method).lstrip("/")
