"""The gRPC door and the administration of sources."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import ErrorInfo

from cdi.collector.v1.collector_service_pb2 import (
    ApplySourceRequest,
    EventInput,
    IngestEventsRequest,
    ListSourcesRequest,
    StreamEventsRequest,
    StreamEventsResponse,
)
from cdi.collector.v1.collector_service_pb2_grpc import CollectorServiceStub, SourcesServiceStub
from cdi.collector.v1.source_pb2 import Source
from cdi.event.v1 import event_pb2
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_testing import eventually

from .conftest import ADMIN, WRITE_KEY, Stored, post

INGEST, STREAM = "/cdi.collector.v1.CollectorService/IngestEvents", "/cdi.collector.v1.CollectorService/StreamEvents"
METADATA = (("authorization", f"Bearer {WRITE_KEY}"),)


@pytest.fixture
async def channel(collector: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(collector.grpc) as made:
        yield made


def track(message_id: str, **fields: object) -> EventInput:
    values: dict[str, object] = {"type": event_pb2.EVENT_TYPE_TRACK, "name": "X", "user_id": "u1", "message_id": message_id}
    return EventInput(**(values | fields))  # type: ignore[arg-type]


async def test_each_event_has_its_own_result(channel: grpc.aio.Channel, stored: Stored) -> None:
    struct = Struct()
    struct.update({"total": 3, "nested": {"a": [1.5]}})
    request = IngestEventsRequest(
        events=[
            track("m1", properties_json=b'{"total": 3}'),
            track("m2", properties=struct),
            track("m3", user_id=""),
            track("m4", properties_json=b"[1]"),
            track("", anonymous_id="a1"),
        ]
    )
    response = await CollectorServiceStub(channel).IngestEvents(request, metadata=METADATA)
    assert [result.index for result in response.results] == [0, 1, 2, 3, 4]
    assert [result.status.code for result in response.results] == [0, 0, 3, 3, 0]
    info = ErrorInfo()
    assert response.results[2].status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("MISSING_IDENTITY", "cdi")
    events = {event.message_id: event for event in await stored.collected()}
    assert events.keys() == {"m1", "m2", response.results[4].message_id}
    assert json.loads(events["m1"].properties) == {"total": 3}
    assert json.loads(events["m2"].properties) == {"total": 3, "nested": {"a": [1.5]}}
    assert await stored.rejected() == []


async def test_a_stranger_is_refused(channel: grpc.aio.Channel) -> None:
    for metadata in ((), (("authorization", "Bearer nope"),)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CollectorServiceStub(channel).IngestEvents(IngestEventsRequest(events=[track("m1")]), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_too_many_events_are_refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await CollectorServiceStub(channel).IngestEvents(IngestEventsRequest(events=[track("m")] * 2_501), metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_a_stream_is_answered_in_order(channel: grpc.aio.Channel, stored: Stored) -> None:
    async def requests() -> AsyncIterator[StreamEventsRequest]:
        for number in range(200):
            key = WRITE_KEY if number == 0 else ""
            batch = IngestEventsRequest(write_key=key, events=[track(f"{number}-{n}") for n in range(5)])
            yield StreamEventsRequest(request_id=number, batch=batch)

    answers = [answer async for answer in CollectorServiceStub(channel).StreamEvents(requests())]
    assert [answer.request_id for answer in answers] == list(range(200))
    assert all(answer.status.code == 0 and len(answer.results) == 5 for answer in answers)
    assert [event.message_id for event in await stored.collected()] == [f"{number}-{n}" for number in range(200) for n in range(5)]


async def test_bytes_that_are_no_event_refuse_their_batch_and_not_the_stream(channel: grpc.aio.Channel, stored: Stored) -> None:
    good, broken = IngestEventsRequest(events=[track("m1")]).SerializeToString(), b"\x12\x02\x2a\xff"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(INGEST)(broken, metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def requests() -> AsyncIterator[bytes]:
        for batch in (broken, good):
            yield b"\x12" + bytes([len(batch)]) + batch

    answers = [StreamEventsResponse.FromString(answer) async for answer in channel.stream_stream(STREAM)(requests(), metadata=METADATA)]
    assert [(answer.status.code, len(answer.results)) for answer in answers] == [(grpc.StatusCode.INVALID_ARGUMENT.value[0], 0), (0, 1)]
    assert [event.message_id for event in await stored.collected()] == ["m1"]


async def test_a_stream_survives_nats_away(channel: grpc.aio.Channel, module_nats: NatsServer) -> None:
    queue: asyncio.Queue[StreamEventsRequest | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[StreamEventsRequest]:
        while (request := await queue.get()) is not None:
            yield request

    answers = CollectorServiceStub(channel).StreamEvents(requests(), metadata=METADATA)

    async def code() -> int:
        await queue.put(StreamEventsRequest(request_id=1, batch=IngestEventsRequest(events=[track("m1")])))
        return (await answers.read()).status.code  # type: ignore[union-attr]

    assert await code() == 0
    module_nats.stop()
    await eventually(lambda: code_is(code, grpc.StatusCode.UNAVAILABLE.value[0]))
    module_nats.start()
    await eventually(lambda: code_is(code, 0))
    await queue.put(None)
    assert await answers.read() is grpc.aio.EOF


async def code_is(code: object, expected: int) -> bool:
    return await code() == expected  # type: ignore[operator]


async def test_sources_are_applied_and_listed(channel: grpc.aio.Channel, collector: ServiceProcess) -> None:
    sources = SourcesServiceStub(channel)
    wanted = Source(workspace_id="acme", source_id="app", write_keys=["k1", "k2"])
    first = await sources.ApplySource(ApplySourceRequest(source=wanted), metadata=ADMIN)
    again = await sources.ApplySource(ApplySourceRequest(source=wanted), metadata=ADMIN)
    assert (first.changed, first.source.version, list(first.source.write_keys)) == (True, 1, [])
    assert (again.changed, again.source.version) == (False, 1)
    assert post(collector, "/v1/track", {"userId": "u", "event": "X", "writeKey": "k2"}, {}).status == 200

    other = Source(workspace_id="acme", source_id="app", write_keys=["k1"], disabled=True)
    changed = await sources.ApplySource(ApplySourceRequest(source=other), metadata=ADMIN)
    assert (changed.changed, changed.source.version) == (True, 2)
    assert post(collector, "/v1/track", {"userId": "u", "event": "X", "writeKey": "k1"}, {}).body["code"] == "source_disabled"
    assert post(collector, "/v1/track", {"userId": "u", "event": "X", "writeKey": "k2"}, {}).status == 401

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sources.ApplySource(
            ApplySourceRequest(source=Source(workspace_id="acme", source_id="thief", write_keys=["k1"])), metadata=ADMIN
        )
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sources.ApplySource(ApplySourceRequest(source=Source(workspace_id="a b", write_keys=[""])), metadata=ADMIN)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    names, token = [], ""
    while True:
        page = await sources.ListSources(ListSourcesRequest(workspace_id="acme", page_size=1, page_token=token), metadata=ADMIN)
        names += [source.source_id for source in page.sources]
        if not (token := page.next_page_token):
            break
    assert names == ["app", "web"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sources.ListSources(ListSourcesRequest(workspace_id="acme", page_token="?"), metadata=ADMIN)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_replica_learns_a_source(channel: grpc.aio.Channel, collector: ServiceProcess, tmp_path: Path) -> None:
    shared = {name: value for name, value in collector.environment.items() if not name.endswith("_ADDRESS")}
    with ServiceProcess("collector", shared, tmp_path, name="replica") as replica:
        source = Source(workspace_id="acme", source_id="new", write_keys=["new-key"])
        await SourcesServiceStub(channel).ApplySource(ApplySourceRequest(source=source), metadata=ADMIN)
        await eventually(lambda: post(replica, "/v1/track", {"userId": "u", "event": "X", "writeKey": "new-key"}, {}).status == 200)
