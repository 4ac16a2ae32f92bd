"""The serving side: a gRPC server with health, reflection and the interceptor that renders faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cdi_kernel.faults import Unavailable
from cdi_runtime.rpc.channels import MAX_MESSAGE_BYTES
from cdi_runtime.rpc.interceptor import Guard, ServerInterceptor, passes

if TYPE_CHECKING:
    from cdi_runtime.service.context import ServiceContext

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Two replicas must never share a port by accident.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
_HEALTH_SECONDS = 0.5
_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Registration:
    """One gRPC service of a process.

    Attributes:
        add_to_server: the generated ``add_<X>Servicer_to_server``.
        servicer: its implementation; methods raise ``Fault``.
        full_name: ``DESCRIPTOR.services_by_name["X"].full_name``.
        guard: looks at every call before it is served; raises the ``Fault`` of one that may not pass.
        unguarded: names of methods that it does not look at.
    """

    add_to_server: Callable[[Any, grpc.aio.Server], None]
    servicer: Any
    full_name: str
    guard: Guard | None = None
    unguarded: frozenset[str] = frozenset()


@contextlib.asynccontextmanager
async def serve(context: ServiceContext, address: str, *registrations: Registration) -> AsyncIterator[str]:
    """Serves the registrations while the block runs and announces the address as ``grpc``.

    At the end new calls are refused at once, and running ones have five seconds to finish.

    Args:
        context: the process; its readiness is the overall gRPC health.
        address: ``host:port``, port 0 takes a free one.
        registrations: the services.

    Yields:
        The bound ``host:port``.

    Raises:
        Unavailable: the address cannot be bound.
    """
    guards = {registration.full_name: registration.guard for registration in registrations if registration.guard is not None}
    guards |= {f"{registration.full_name}/{method}": passes for registration in registrations for method in registration.unguarded}
    server = grpc.aio.server(interceptors=[ServerInterceptor(guards)], options=_OPTIONS)
    for registration in registrations:
        registration.add_to_server(registration.servicer, server)
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # public, but not marked as exported
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [registration.full_name for registration in registrations]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    bound = _bind(server, address)
    await server.start()
    for name in names:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    context.announce("grpc", bound)
    try:
        async with context.background(_follow_readiness(context, servicer), "grpc-health"):
            yield bound
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace=_GRACE_SECONDS)


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable("network", f"cannot listen on {address}") from error
    return f"{address.rpartition(':')[0]}:{port}"


async def _follow_readiness(context: ServiceContext, servicer: Any) -> None:
    known: bool | None = None
    while True:
        ready = not context.readiness.reasons()
        if ready is not known:
            state = health_pb2.HealthCheckResponse
            await servicer.set("", state.SERVING if ready else state.NOT_SERVING)
            known = ready
        await asyncio.sleep(_HEALTH_SECONDS)
