"""gRPC in: ``CollectorService`` and ``SourcesService``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import grpc

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1 import collector_service_pb2_grpc as pb_grpc
from cdi.error.v1 import error_pb2
from cdi_collector.admission import Budget
from cdi_collector.application import Collector, Sources, Submission
from cdi_collector.convert import ingest, sources
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_RPC_BYTES
from cdi_collector.domain.signals import Signals
from cdi_collector.domain.sources import Source
from cdi_kernel.faults import Fault, TooLarge
from cdi_runtime.rpc import status_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

FULL_NAME: Final = pb.DESCRIPTOR.services_by_name["CollectorService"].full_name
_BEARER: Final = "bearer "
_WINDOW: Final = 16
"""Batches of one stream that are stored at the same time; the next one is read when the oldest is answered."""


class CollectorServicer:
    """Takes events. Requests come and answers leave as bytes (``sources.ingest``)."""

    def __init__(self, collector: Collector, budget: Budget) -> None:
        self._collector = collector
        self._budget = budget

    def add_to_server(self, _: object, server: grpc.aio.Server) -> None:
        """Registers the methods without the generated code's reading and writing."""
        methods = {
            "IngestEvents": grpc.unary_unary_rpc_method_handler(self.ingest_events),
            "StreamEvents": grpc.stream_stream_rpc_method_handler(self.stream_events),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(FULL_NAME, methods),))

    async def ingest_events(self, request: bytes, context: Context) -> bytes:
        """``IngestEvents``: one batch."""
        metadata = _metadata(context)
        batch = ingest.batch_of(request)
        source = self._collector.authenticate(_write_key(metadata) or batch.write_key)
        return await self._ingest(source, batch, _Caller(metadata, context.peer()), ingest.RESULTS_TAG)

    async def stream_events(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """``StreamEvents``: batches of one client, each answered when it is stored, in their order."""
        window: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_WINDOW)
        reading = asyncio.create_task(self._read(requests, _Caller(_metadata(context), context.peer()), window))
        try:
            while (answer := await window.get()) is not None:
                yield await answer
            await reading
        finally:
            reading.cancel()
            while not window.empty():
                if (left := window.get_nowait()) is not None:
                    left.cancel()

    async def _read(self, requests: AsyncIterator[bytes], caller: _Caller, window: asyncio.Queue[asyncio.Task[bytes] | None]) -> None:
        """Starts a task per batch. Tasks start in the order of their creation, which keeps the order of the events."""
        source: Source | None = None
        try:
            async for wire in requests:
                request = ingest.stream_batch_of(wire)
                if source is None:
                    source = self._collector.authenticate(_write_key(caller.metadata) or request.batch.write_key)
                await window.put(asyncio.create_task(self._answer(source, request, caller)))
        finally:
            await window.put(None)

    async def _answer(self, source: Source, request: ingest.StreamBatch, caller: _Caller) -> bytes:
        answer = pb.StreamEventsResponse(request_id=request.request_id)
        try:
            results = await self._ingest(source, request.batch, caller, ingest.STREAM_RESULTS_TAG)
        except Fault as fault:
            answer.status.CopyFrom(status_of(fault))
            return answer.SerializeToString()
        answer.status.SetInParent()
        return answer.SerializeToString() + results

    async def _ingest(self, source: Source, batch: ingest.Batch, caller: _Caller, tag: bytes) -> bytes:
        size = len(batch.wire)
        _within_limits(size, len(batch.events))
        self._collector.pace.charge(source, len(batch.events))
        self._budget.enter()
        try:
            self._budget.take(size)
        except Fault:
            self._budget.leave()
            raise
        try:
            intake = await self._collector.collect(source, caller.submission(batch, source))
        finally:
            self._budget.give(size)
            self._budget.leave()
        return ingest.results_of(tag, intake, [status_of(refusal.fault) for refusal in intake.refusals])


class SourcesServicer(pb_grpc.SourcesServiceServicer):
    """Administers sources."""

    def __init__(self, administration: Sources) -> None:
        self._sources = administration

    async def ApplySource(self, request: pb.ApplySourceRequest, context: Context) -> pb.ApplySourceResponse:
        """Makes a source be as given."""
        applied, changed = await self._sources.apply(sources.source_of(request.source), request.source.write_keys)
        return pb.ApplySourceResponse(source=sources.source_message(applied), changed=changed)

    async def ListSources(self, request: pb.ListSourcesRequest, context: Context) -> pb.ListSourcesResponse:
        """A page of the sources of a workspace."""
        after = sources.after_of(request.page_token)
        page, following = await self._sources.page(request.workspace_id, after, request.page_size)
        shown = [sources.source_message(source) for source in page]
        return pb.ListSourcesResponse(sources=shown, next_page_token=sources.page_token_of(following))

    async def CreateSource(self, request: pb.CreateSourceRequest, context: Context) -> pb.CreateSourceResponse:
        """A new source and its key."""
        made, write_key = await self._sources.create(sources.source_of(request.source), request.source.write_keys)
        return pb.CreateSourceResponse(source=sources.source_message(made), write_key=write_key)

    async def GetSource(self, request: pb.GetSourceRequest, context: Context) -> pb.GetSourceResponse:
        """One source."""
        found = await self._sources.get(request.workspace_id, request.source_id)
        return pb.GetSourceResponse(source=sources.source_message(found))

    async def AddWriteKey(self, request: pb.AddWriteKeyRequest, context: Context) -> pb.AddWriteKeyResponse:
        """One more key."""
        changed, write_key = await self._sources.add_key(request.workspace_id, request.source_id)
        return pb.AddWriteKeyResponse(source=sources.source_message(changed), write_key=write_key)

    async def RotateWriteKeys(self, request: pb.RotateWriteKeysRequest, context: Context) -> pb.RotateWriteKeysResponse:
        """A fresh key; the others end."""
        grace = sources.grace_seconds_of(request)
        changed, write_key = await self._sources.rotate_keys(request.workspace_id, request.source_id, grace)
        return pb.RotateWriteKeysResponse(source=sources.source_message(changed), write_key=write_key)

    async def RevokeWriteKey(self, request: pb.RevokeWriteKeyRequest, context: Context) -> pb.RevokeWriteKeyResponse:
        """Ends a key."""
        changed = await self._sources.revoke_key(
            request.workspace_id, request.source_id, write_key=request.write_key, fingerprint=request.fingerprint
        )
        return pb.RevokeWriteKeyResponse(source=sources.source_message(changed))

    async def DisableSource(self, request: pb.DisableSourceRequest, context: Context) -> pb.DisableSourceResponse:
        """Switches a source off."""
        changed = await self._sources.switch(request.workspace_id, request.source_id, disabled=True)
        return pb.DisableSourceResponse(source=sources.source_message(changed))

    async def EnableSource(self, request: pb.EnableSourceRequest, context: Context) -> pb.EnableSourceResponse:
        """Switches a source on."""
        changed = await self._sources.switch(request.workspace_id, request.source_id, disabled=False)
        return pb.EnableSourceResponse(source=sources.source_message(changed))


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, for all batches of a call."""

    metadata: Mapping[str, str]
    peer: str

    def submission(self, batch: ingest.Batch, source: Source) -> Submission:
        metadata = self.metadata
        # Addresses that an event names itself are hidden in its objects.
        items = ingest.items_of(batch, as_sent=source.protection.ip_handling == "keep")
        return Submission(
            protocol="grpc",
            items=items,
            sent_us=batch.sent_us,
            client_ip=_peer_ip(self.peer),
            user_agent=metadata.get("user-agent", ""),
            traceparent=metadata.get("traceparent", ""),
            signals=Signals(metadata.get("dnt") == "1", metadata.get("sec-gpc") == "1"),
        )


def _within_limits(size: int, events: int) -> None:
    """Raises ``TooLarge`` for a request of too many bytes or events."""
    for found, limit, unit in ((size, MAX_RPC_BYTES, "bytes"), (events, MAX_BATCH_EVENTS, "events")):
        if found > limit:
            metadata = {"limit": str(limit), "size": str(found)}
            raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"a request has at most {limit} {unit}", metadata=metadata)


def _write_key(metadata: Mapping[str, str]) -> str:
    authorization = metadata.get("authorization", "")
    return authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""


def _metadata(context: Context) -> Mapping[str, str]:
    """What came with a call; of a name that repeats, the first."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        found.setdefault(key, str(value))
    return found


def _peer_ip(peer: str) -> str:
    """``ipv4:127.0.0.1:5`` or ``ipv6:%5B::1%5D:5`` as the address alone."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
