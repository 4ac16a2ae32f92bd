"""The gRPC side of ``bench.collector``: prepared requests in the fast form, and a client that keeps some of them under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc
import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from bench.hammer import Struck
from bench.traffic import WRITE_KEY
from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2

CALLS_UNDER_WAY: Final = 16
INGEST: Final = "/cdi.collector.v1.CollectorService/IngestEvents"


def grpc_request(batch: list[dict[str, Any]]) -> bytes:
    """Events in the fast form: objects as JSON bytes."""
    return pb.IngestEventsRequest(events=[_input(event) for event in batch]).SerializeToString()


def _input(event: Mapping[str, Any]) -> pb.EventInput:
    happened = Timestamp()
    happened.FromJsonString(event["timestamp"])
    made = pb.EventInput(
        message_id=event["messageId"],
        type=event_pb2.EventType.Value(f"EVENT_TYPE_{event['type'].upper()}"),
        name=event.get("event") or event.get("name") or "",
        user_id=event["userId"] or "",
        anonymous_id=event["anonymousId"],
        original_time=happened,
    )
    for name in ("properties", "traits", "context"):
        if name in event:
            setattr(made, f"{name}_json", orjson.dumps(event[name]))
    return made


class GrpcHammer:
    """Unary calls whose requests are prepared bytes and whose answers stay bytes, except that the first is looked at."""

    def __init__(self, channel: grpc.aio.Channel, requests: list[bytes]) -> None:
        self._call = channel.unary_unary(INGEST, request_serializer=None, response_deserializer=None)
        self._requests = requests
        self._metadata = (("authorization", f"Bearer {WRITE_KEY}"),)

    async def closed(self, seconds: float) -> Struck:
        """A fixed number of calls under way for some seconds."""
        first = pb.IngestEventsResponse.FromString(await self._call(self._requests[0], metadata=self._metadata))
        if any(result.status.code for result in first.results) or not first.results:
            raise RuntimeError("not everything was taken")
        struck, started = Struck(), time.perf_counter()

        async def caller(offset: int) -> None:
            at = offset
            while time.perf_counter() < started + seconds:
                await self._call(self._requests[at % len(self._requests)], metadata=self._metadata)
                struck.answered += 1
                at += CALLS_UNDER_WAY

        await asyncio.gather(*(caller(offset) for offset in range(CALLS_UNDER_WAY)))
        struck.seconds = time.perf_counter() - started
        return struck
