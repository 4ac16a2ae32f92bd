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
from cdi_collector.admission import Budget
from cdi_collector.application import Collector, Sources, Submission
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_RPC_BYTES
from cdi_collector.domain.signals import Signals
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
        self._collector.pace.charge(source, len(request.events))
        self._budget.enter()
        try:
            self._budget.take(size)
        except Fault:
            self._budget.leave()
            raise
        try:
            intake = await self._collector.collect(source, _submission(request, context))
        finally:
            self._budget.give(size)
            self._budget.leave()
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

    async def CreateSource(self, request: pb.CreateSourceRequest, context: Context) -> pb.CreateSourceResponse:
        """A new source and its key."""
        made, write_key = await self._sources.create(convert.source_of(request.source), request.source.write_keys)
        return pb.CreateSourceResponse(source=convert.source_message(made), write_key=write_key)

    async def GetSource(self, request: pb.GetSourceRequest, context: Context) -> pb.GetSourceResponse:
        """One source."""
        found = await self._sources.get(request.workspace_id, request.source_id)
        return pb.GetSourceResponse(source=convert.source_message(found))

    async def AddWriteKey(self, request: pb.AddWriteKeyRequest, context: Context) -> pb.AddWriteKeyResponse:
        """One more key."""
        changed, write_key = await self._sources.add_key(request.workspace_id, request.source_id)
        return pb.AddWriteKeyResponse(source=convert.source_message(changed), write_key=write_key)

    async def RotateWriteKeys(self, request: pb.RotateWriteKeysRequest, context: Context) -> pb.RotateWriteKeysResponse:
        """A fresh key; the others end."""
        grace = convert.grace_seconds_of(request)
        changed, write_key = await self._sources.rotate_keys(request.workspace_id, request.source_id, grace)
        return pb.RotateWriteKeysResponse(source=convert.source_message(changed), write_key=write_key)

    async def RevokeWriteKey(self, request: pb.RevokeWriteKeyRequest, context: Context) -> pb.RevokeWriteKeyResponse:
        """Ends a key."""
        changed = await self._sources.revoke_key(
            request.workspace_id, request.source_id, write_key=request.write_key, fingerprint=request.fingerprint
        )
        return pb.RevokeWriteKeyResponse(source=convert.source_message(changed))

    async def DisableSource(self, request: pb.DisableSourceRequest, context: Context) -> pb.DisableSourceResponse:
        """Switches a source off."""
        changed = await self._sources.switch(request.workspace_id, request.source_id, disabled=True)
        return pb.DisableSourceResponse(source=convert.source_message(changed))

    async def EnableSource(self, request: pb.EnableSourceRequest, context: Context) -> pb.EnableSourceResponse:
        """Switches a source on."""
        changed = await self._sources.switch(request.workspace_id, request.source_id, disabled=False)
        return pb.EnableSourceResponse(source=convert.source_message(changed))


def _submission(request: pb.IngestEventsRequest, context: Context) -> Submission:
    return Submission(
        protocol="grpc",
        items=convert.items_of(request),
        sent_us=convert.sent_us_of(request),
        client_ip=_peer_ip(context.peer()),
        user_agent=_metadata(context, "user-agent"),
        traceparent=_metadata(context, "traceparent"),
        signals=Signals(_metadata(context, "dnt") == "1", _metadata(context, "sec-gpc") == "1"),
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
