"""gRPC in: ``CollectorService`` and ``SourcesService``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import grpc
from google.rpc import status_pb2

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1 import collector_service_pb2_grpc as pb_grpc
from cdi.error.v1 import error_pb2
from cdi_collector import convert
from cdi_collector.application import Budget, Collector, Sources, Submission
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_RPC_BYTES
from cdi_collector.domain.sources import Source
from cdi_kernel.faults import Fault, TooLarge
from cdi_runtime.rpc import status_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_BEARER: Final = "bearer "
_WINDOW: Final = 16
"""Batches of one stream that are stored at the same time; the next one is read when the oldest is answered."""


class CollectorServicer(pb_grpc.CollectorServiceServicer):
    """Takes events."""

    def __init__(self, collector: Collector, budget: Budget) -> None:
        self._collector = collector
        self._budget = budget

    async def IngestEvents(self, request: pb.IngestEventsRequest, context: Context) -> pb.IngestEventsResponse:
        """One batch."""
        source = self._collector.authenticate(_write_key(context) or request.write_key)
        return pb.IngestEventsResponse(results=await self._ingest(source, request, context))

    async def StreamEvents(
        self, requests: AsyncIterator[pb.StreamEventsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        """Batches of one client, each answered when it is stored, in their order."""
        window: asyncio.Queue[asyncio.Task[pb.StreamEventsResponse] | None] = asyncio.Queue(_WINDOW)
        reading = asyncio.create_task(self._read(requests, context, window))
        try:
            while (answer := await window.get()) is not None:
                yield await answer
            await reading
        finally:
            reading.cancel()
            while not window.empty():
                if (left := window.get_nowait()) is not None:
                    left.cancel()

    async def _read(
        self,
        requests: AsyncIterator[pb.StreamEventsRequest],
        context: Context,
        window: asyncio.Queue[asyncio.Task[pb.StreamEventsResponse] | None],
    ) -> None:
        """Starts a task per batch. Tasks start in the order of their creation, which keeps the order of the events."""
        source: Source | None = None
        try:
            async for request in requests:
                if source is None:
                    source = self._collector.authenticate(_write_key(context) or request.batch.write_key)
                await window.put(asyncio.create_task(self._answer(source, request, context)))
        finally:
            await window.put(None)

    async def _answer(self, source: Source, request: pb.StreamEventsRequest, context: Context) -> pb.StreamEventsResponse:
        try:
            results = await self._ingest(source, request.batch, context)
        except Fault as fault:
            return pb.StreamEventsResponse(request_id=request.request_id, status=status_of(fault))
        return pb.StreamEventsResponse(request_id=request.request_id, status=status_pb2.Status(), results=results)

    async def _ingest(self, source: Source, request: pb.IngestEventsRequest, context: Context) -> list[pb.IngestResult]:
        size = _within_limits(request)
        self._budget.take(size)
        try:
            intake = await self._collector.collect(source, _submission(request, context))
        finally:
            self._budget.give(size)
        return convert.results_of(intake, [status_of(refusal.fault) for refusal in intake.refusals])


class SourcesServicer(pb_grpc.SourcesServiceServicer):
    """Administers sources."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def ApplySource(self, request: pb.ApplySourceRequest, context: Context) -> pb.ApplySourceResponse:
        """Makes a source be as given."""
        applied, changed = await self._sources.apply(convert.source_of(request.source), request.source.write_keys)
        return pb.ApplySourceResponse(source=convert.source_message(applied), changed=changed)

    async def ListSources(self, request: pb.ListSourcesRequest, context: Context) -> pb.ListSourcesResponse:
        """A page of the sources of a workspace."""
        after = convert.after_of(request.page_token)
        page, following = await self._sources.page(request.workspace_id, after, request.page_size)
        sources = [convert.source_message(source) for source in page]
        return pb.ListSourcesResponse(sources=sources, next_page_token=convert.page_token_of(following))


def _submission(request: pb.IngestEventsRequest, context: Context) -> Submission:
    return Submission(
        protocol="grpc",
        items=convert.items_of(request),
        sent_us=convert.sent_us_of(request),
        client_ip=_peer_ip(context.peer()),
        user_agent=_metadata(context, "user-agent"),
        traceparent=_metadata(context, "traceparent"),
    )


def _within_limits(request: pb.IngestEventsRequest) -> int:
    """The size of a request in bytes; raises ``TooLarge``."""
    size = request.ByteSize()
    for found, limit, unit in ((size, MAX_RPC_BYTES, "bytes"), (len(request.events), MAX_BATCH_EVENTS, "events")):
        if found > limit:
            metadata = {"limit": str(limit), "size": str(found)}
            raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"a request has at most {limit} {unit}", metadata=metadata)
    return size


def _write_key(context: Context) -> str:
    authorization = _metadata(context, "authorization")
    return authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""


def _metadata(context: Context, name: str) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == name), "")


def _peer_ip(peer: str) -> str:
    """``ipv4:127.0.0.1:5`` or ``ipv6:%5B::1%5D:5`` as the address alone."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
