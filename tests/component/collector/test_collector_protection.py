"""What sources and the installation protect: origins, addresses, rates, requests under way; and what requests say of their senders."""

import base64
import hashlib
import http.client
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1.collector_service_pb2_grpc import CollectorServiceStub, SourcesServiceStub
from cdi.collector.v1.source_pb2 import IP_HANDLING_DROP, IP_HANDLING_TRUNCATE, RateLimit, Source
from cdi.event.v1 import event_pb2
from cdi_cli.embedded import ServiceProcess
from cdi_testing import eventually

from .conftest import ADMIN, BASIC, Answer, Stored, apply_source, post, request

TRACK = {"event": "X", "userId": "u1"}
SHOP = {"Origin": "https://shop.example"}


@pytest.fixture
async def channel(collector: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(collector.grpc) as made:
        yield made


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def sent(collector: ServiceProcess, key: str, *, events: int = 1, in_body: bool = False, **headers: str) -> Answer:
    body: dict[str, Any] = {"batch": [{"type": "track", **TRACK}] * events} | ({"writeKey": key} if in_body else {})
    return post(collector, "/v1/batch", body, headers if in_body else basic(key) | headers)


@pytest.mark.parametrize("in_body", [False, True])
async def test_only_listed_pages_may_send(collector: ServiceProcess, stored: Stored, in_body: bool) -> None:
    apply_source(collector, workspace_id="acme", source_id="pages", write_keys=["pages"], allowed_origins=["https://shop.example"])
    assert sent(collector, "pages", in_body=in_body, **SHOP).status == 200
    assert sent(collector, "pages", in_body=in_body).status == 200
    refused = sent(collector, "pages", in_body=in_body, Origin="https://evil.example")
    assert (refused.status, refused.body["code"]) == (403, "origin_not_allowed")
    assert [name for name in refused.headers if name.startswith("access-control")] == []
    assert len(await stored.collected()) == 2


@pytest.mark.parametrize(("name", "handling", "kept"), [("cut", IP_HANDLING_TRUNCATE, "127.0.0.0"), ("none", IP_HANDLING_DROP, "")])
async def test_addresses_are_not_kept(collector: ServiceProcess, stored: Stored, name: str, handling: Any, kept: str) -> None:
    apply_source(collector, workspace_id="acme", source_id=name, write_keys=[name], ip_handling=handling)
    context = {"context": {"ip": "203.0.113.9", "locale": "de"}}
    batch = [{"type": "track", **TRACK, **context}, {"type": "nothing", **context}]
    assert post(collector, "/v1/batch", {"batch": batch}, basic(name)).status == 200
    (event,), (rejected,) = await stored.collected(), await stored.rejected()
    assert event.client_ip == kept
    shown = {"locale": "de"} | ({"ip": "203.0.113.0"} if kept else {})
    assert json.loads(event.context) == shown
    assert json.loads(rejected.payload)["context"] == shown


async def test_a_source_is_held_to_its_rate(collector: ServiceProcess, channel: grpc.aio.Channel, stored: Stored) -> None:
    rate = RateLimit(events_per_second=0.02, burst=10)
    apply_source(collector, workspace_id="acme", source_id="slow", write_keys=["slow"], rate_limit=rate)
    assert sent(collector, "slow", events=9).status == 200
    for in_body in (False, True):
        refused = sent(collector, "slow", events=2, in_body=in_body, **SHOP)
        assert (refused.status, refused.body["code"]) == (429, "rate_limited")
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= 50
        assert abs(int(refused.headers["x-ratelimit-reset"]) - time.time() - wait) < 3
        assert "X-RateLimit-Reset" in refused.headers["access-control-expose-headers"]
    assert sent(collector, "slow", events=11).status == 413
    assert sent(collector, "slow").status == 200
    assert len(await stored.collected()) == 10

    events = [pb.EventInput(type=event_pb2.EVENT_TYPE_TRACK, name="X", user_id="u")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await CollectorServiceStub(channel).IngestEvents(pb.IngestEventsRequest(write_key="slow", events=events))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found[ErrorInfo].reason == "RATE_LIMITED"
    assert found[QuotaFailure].violations[0].subject == "source:slow"
    assert found[RetryInfo].retry_delay.seconds >= 1


def details(error: grpc.aio.AioRpcError) -> dict[type, Any]:
    raw = next(value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin")
    found: dict[type, Any] = {}
    for detail in Status.FromString(raw).details:  # type: ignore[arg-type]  # a -bin key has bytes
        for kind in (ErrorInfo, QuotaFailure, RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind] = message
    return found


async def test_a_source_without_events_left_is_refused_before_its_body(collector: ServiceProcess) -> None:
    rate = RateLimit(events_per_second=0.02, burst=1)
    apply_source(collector, workspace_id="acme", source_id="out", write_keys=["out"], rate_limit=rate)
    assert sent(collector, "out").status == 200
    assert answered_without_body(collector, basic("out")) == 429


def answered_without_body(collector: ServiceProcess, headers: dict[str, str]) -> int:
    """The status that a request gets of which only the head was sent."""
    connection = http.client.HTTPConnection(collector.addresses["http"], timeout=10)
    try:
        connection.putrequest("POST", "/v1/batch")
        for name, value in {**headers, "Content-Length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


async def test_too_many_requests_are_refused_before_their_body(collector: ServiceProcess, tmp_path: Path) -> None:
    environment = {name: value for name, value in collector.environment.items() if not name.endswith("_ADDRESS")}
    environment |= {"CDI_MAX_REQUESTS": "1", "CDI_BODY_SECONDS": "30"}
    with ServiceProcess("collector", environment, tmp_path, name="narrow") as narrow:
        waiting = http.client.HTTPConnection(narrow.addresses["http"], timeout=30)
        waiting.putrequest("POST", "/v1/track")
        for name, value in {**BASIC, "Content-Length": str(len(json.dumps(TRACK)))}.items():
            waiting.putheader(name, value)
        waiting.endheaders()
        await eventually(lambda: answered_without_body(narrow, BASIC | {"X-Test": "1"}) == 503)
        refused = request(narrow, "POST", "/v1/track", json.dumps(TRACK).encode(), BASIC)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert request(narrow, "OPTIONS", "/v1/track", None, SHOP).status == 204
        waiting.send(json.dumps(TRACK).encode())
        assert waiting.getresponse().status == 200
        waiting.close()
        assert post(narrow, "/v1/track", TRACK).status == 200


async def test_signals_are_on_the_event(collector: ServiceProcess, channel: grpc.aio.Channel, stored: Stored) -> None:
    headers = {"DNT": "1", "Sec-GPC": "1", "User-Agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}
    assert post(collector, "/v1/track", TRACK, BASIC | headers).status == 200
    assert post(collector, "/v1/track", TRACK, BASIC | {"DNT": "0"}).status == 200
    events = [pb.EventInput(type=event_pb2.EVENT_TYPE_TRACK, name="X", user_id="u1")]
    await CollectorServiceStub(channel).IngestEvents(
        pb.IngestEventsRequest(write_key="test-key", events=events), metadata=(("dnt", "1"), ("sec-gpc", "0"))
    )
    said, nothing, rpc = await stored.collected()
    assert said.signals == event_pb2.ClientSignals(do_not_track=True, global_privacy_control=True, bot=True)
    assert not nothing.HasField("signals")
    assert rpc.signals == event_pb2.ClientSignals(do_not_track=True)


NAMES = {"workspace_id": "acme", "source_id": "keys"}


async def test_the_life_of_a_source(collector: ServiceProcess, channel: grpc.aio.Channel, tmp_path: Path) -> None:
    shared = {name: value for name, value in collector.environment.items() if not name.endswith("_ADDRESS")}
    sources = SourcesServiceStub(channel)
    with ServiceProcess("collector", shared, tmp_path, name="other") as other:

        def statuses(key: str) -> set[int]:
            return {sent(replica, key).status for replica in (collector, other)}

        made = await sources.CreateSource(pb.CreateSourceRequest(source=Source(**NAMES)), metadata=ADMIN)
        first = made.write_key
        (shown,) = made.source.keys
        assert shown.fingerprint == hashlib.sha256(first.encode()).hexdigest()[:16]
        await eventually(lambda: statuses(first) == {200})

        added = await sources.AddWriteKey(pb.AddWriteKeyRequest(**NAMES), metadata=ADMIN)
        await eventually(lambda: statuses(added.write_key) == {200})

        # Revoked here, and within five seconds elsewhere: the bound of the contract.
        await sources.RevokeWriteKey(pb.RevokeWriteKeyRequest(**NAMES, fingerprint=shown.fingerprint), metadata=ADMIN)
        assert sent(collector, first).status == 401
        await eventually(lambda: sent(other, first).status == 401, within=5)

        grace = Duration(seconds=2)
        rotated = await sources.RotateWriteKeys(pb.RotateWriteKeysRequest(**NAMES, grace_period=grace), metadata=ADMIN)
        assert sorted(key.HasField("expire_time") for key in rotated.source.keys) == [False, True]
        assert sent(collector, added.write_key).status == 200
        await eventually(lambda: statuses(added.write_key) == {401}, within=7)
        assert statuses(rotated.write_key) == {200}
        got = await sources.GetSource(pb.GetSourceRequest(**NAMES), metadata=ADMIN)
        assert [key.HasField("expire_time") for key in got.source.keys] == [False]

        off = await sources.DisableSource(pb.DisableSourceRequest(**NAMES), metadata=ADMIN)
        assert off.source.disabled
        await eventually(lambda: statuses(rotated.write_key) == {403}, within=5)
        on = await sources.EnableSource(pb.EnableSourceRequest(**NAMES), metadata=ADMIN)
        assert (on.source.disabled, on.source.version) == (False, off.source.version + 1)
        await eventually(lambda: statuses(rotated.write_key) == {200})


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer nope"),), (("authorization", "Bearer test-key"),)])
async def test_administration_needs_a_token(channel: grpc.aio.Channel, metadata: Any) -> None:
    sources = SourcesServiceStub(channel)
    for call in (
        sources.ApplySource(pb.ApplySourceRequest(source=Source(**NAMES)), metadata=metadata),
        sources.ListSources(pb.ListSourcesRequest(workspace_id="acme"), metadata=metadata),
        sources.RotateWriteKeys(pb.RotateWriteKeysRequest(**NAMES), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert details(caught.value)[ErrorInfo].reason == "PERMISSION_DENIED"


async def test_wrong_administration_has_reasons(channel: grpc.aio.Channel) -> None:
    sources, nobody = SourcesServiceStub(channel), {"workspace_id": "acme", "source_id": "nobody"}
    web = {"workspace_id": "acme", "source_id": "web"}
    for call, reason in (
        (sources.CreateSource(pb.CreateSourceRequest(source=Source(**web)), metadata=ADMIN), "ALREADY_EXISTS"),
        (sources.GetSource(pb.GetSourceRequest(**nobody), metadata=ADMIN), "NOT_FOUND"),
        (sources.AddWriteKey(pb.AddWriteKeyRequest(**nobody), metadata=ADMIN), "NOT_FOUND"),
        (sources.RevokeWriteKey(pb.RevokeWriteKeyRequest(**web, write_key="x"), metadata=ADMIN), "NOT_FOUND"),
        (
            sources.RotateWriteKeys(pb.RotateWriteKeysRequest(**web, grace_period=Duration(seconds=-1)), metadata=ADMIN),
            "INVALID_ARGUMENT",
        ),
        (sources.CreateSource(pb.CreateSourceRequest(source=Source(source_id="a b")), metadata=ADMIN), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert details(caught.value)[ErrorInfo].reason == reason
