"""The HTTP door, as SDKs and strangers find it."""

import asyncio
import gzip
import http.client
import json
import socket
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import psutil
import pytest
from segment.analytics.client import Client

from cdi.event.v1 import event_pb2
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel import envelope
from cdi_kernel.topology import StreamName
from cdi_kernel.topology import collected as subject_of
from cdi_testing import eventually

from .conftest import BASIC, Stored, post, request

CUT_OFF = (OSError, http.client.HTTPException)
"""What a client sees of a server that dies: before the answer, or within it."""

TRACK = {"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "m1", "properties": {"total": 19.95}}


def bomb() -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(squeezer.compress(bytes(1024 * 1024)) for _ in range(400)) + squeezer.flush()


@pytest.mark.parametrize("zipped", [False, True])
async def test_every_call_of_the_segment_sdk(collector: ServiceProcess, stored: Stored, zipped: bool) -> None:
    client = Client("test-key", host=f"http://{collector.addresses['http']}", gzip=zipped, max_retries=0, on_error=raise_it)
    client.identify("u1", {"email": "a@b.co"}, message_id="m-identify")
    client.track("u1", "Order Completed", {"total": 19.95}, anonymous_id="a1", integrations={"All": True}, message_id="m-track")
    client.page("u1", "Docs", "Home", {"url": "https://shop.example/"}, message_id="m-page")
    client.screen("u1", "Main", "Cart", message_id="m-screen")
    client.group("u1", "g1", {"plan": "pro"}, message_id="m-group")
    client.alias("u0", "u1", message_id="m-alias")
    client.shutdown()

    events = {event.message_id: event for event in await stored.collected()}

    assert {name: (event.type, event.name) for name, event in events.items()} == {
        "m-identify": (event_pb2.EVENT_TYPE_IDENTIFY, ""),
        "m-track": (event_pb2.EVENT_TYPE_TRACK, "Order Completed"),
        "m-page": (event_pb2.EVENT_TYPE_PAGE, "Home"),
        "m-screen": (event_pb2.EVENT_TYPE_SCREEN, "Cart"),
        "m-group": (event_pb2.EVENT_TYPE_GROUP, ""),
        "m-alias": (event_pb2.EVENT_TYPE_ALIAS, ""),
    }
    assert json.loads(events["m-identify"].traits) == {"email": "a@b.co"}
    assert json.loads(events["m-track"].properties) == {"total": 19.95}
    assert (events["m-track"].anonymous_id, json.loads(events["m-track"].integrations)) == ("a1", {"All": True})
    assert events["m-page"].category == "Docs"
    assert (events["m-group"].group_id, json.loads(events["m-group"].traits)) == ("g1", {"plan": "pro"})
    assert (events["m-alias"].previous_id, events["m-alias"].user_id) == ("u0", "u1")
    for event in events.values():
        assert (event.workspace_id, event.source_id, event.client_ip) == ("acme", "web", "127.0.0.1")
        assert event.user_agent.startswith("analytics-python/")
        assert json.loads(event.context)["library"]["name"] == "analytics-python"
        assert abs(event.event_time.ToMicroseconds() - time.time() * 1e6) < 60e6


def raise_it(error: Exception, _: Any) -> None:
    raise error


def send_raw(collector: ServiceProcess, data: bytes) -> bytes:
    host, _, port = collector.addresses["http"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        return connection.recv(65_536)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("kind", ["identify", "track", "page", "screen", "group", "alias"])
async def test_single_event_paths(collector: ServiceProcess, stored: Stored, kind: str, short: bool) -> None:
    path = kind[0] if short else kind
    body = {"event": "X", "userId": "u", "groupId": "g", "previousId": "p", "writeKey": "test-key", "sentAt": "2026-01-02T03:04:05Z"}
    answer = post(collector, f"/v1/{path}", body, {})
    assert (answer.status, answer.body) == (200, {"success": True})
    (event,) = await stored.collected()
    assert event_pb2.EventType.Name(event.type) == f"EVENT_TYPE_{kind.upper()}"
    assert uuid.UUID(event.message_id).version == 7


LARGE = {"batch": [TRACK | {"properties": {"a": "x" * 30_000}}] * 20}

BAD = {
    "unknown key in the body": ("/v1/track", TRACK | {"writeKey": "nope"}, {}, 401, "unknown_write_key"),
    "unknown key in the header": ("/v1/track", TRACK, {"Authorization": "Basic bm9wZTo="}, 401, "unknown_write_key"),
    "unreadable header": ("/v1/track", TRACK, {"Authorization": "Basic ???"}, 401, "unknown_write_key"),
    "no key": ("/v1/track", TRACK, {}, 401, "unknown_write_key"),
    "empty": ("/v1/track", b"", BASIC, 400, "malformed_payload"),
    "not JSON": ("/v1/batch", b"{", BASIC, 400, "malformed_payload"),
    "no batch": ("/v1/batch", {}, BASIC, 400, "malformed_payload"),
    "batch of the wrong type": ("/v1/batch", {"batch": {}}, BASIC, 400, "invalid_field"),
    "invalid UTF-8": ("/v1/batch", b'{"batch":["\xff"]}', BASIC, 400, "invalid_encoding"),
    "damaged gzip": ("/v1/batch", b"\x1f\x8bxxxx", BASIC, 400, "invalid_compression"),
    "deep": ("/v1/track", TRACK | {"properties": json.loads('{"a":' * 70 + "1" + "}" * 70)}, BASIC, 400, "nesting_too_deep"),
    "deeper": ("/v1/track", b"[" * 10_000 + b"]" * 10_000, BASIC, 400, "nesting_too_deep"),
    "infinite number": ("/v1/track", b'{"userId":"u","event":"X","properties":{"a":1e999}}', BASIC, 400, "invalid_field"),
    "long number": ("/v1/track", b'{"userId":%s,"event":"X"}' % (b"9" * 4_000), BASIC, 400, "invalid_field"),
    "NUL in an id": ("/v1/track", TRACK | {"userId": "a\0"}, BASIC, 400, "invalid_field"),
    "missing ids": ("/v1/track", {"event": "X"}, BASIC, 400, "missing_identity"),
    "large event": ("/v1/track", TRACK | {"properties": {"a": "x" * 33_000}}, BASIC, 413, "too_large"),
    "large batch": ("/v1/batch", LARGE | {"writeKey": "test-key"}, BASIC, 413, "too_large"),
    "large batch of a stranger": ("/v1/batch", LARGE, {}, 413, "too_large"),
    "larger batch": ("/v1/batch", b" " * 5_000_000, BASIC, 413, "too_large"),
    "many events": ("/v1/batch", {"batch": [{}] * 2_501}, BASIC, 413, "too_large"),
    "gzip bomb": ("/v1/batch", bomb(), BASIC, 413, "too_large"),
    "unknown path": ("/v2/track", TRACK, BASIC, 404, "not_found"),
}


async def test_bad_input_has_clear_answers(collector: ServiceProcess, stored: Stored) -> None:
    before = psutil.Process(collector.pid).memory_info().rss
    for name, (path, body, headers, status, code) in BAD.items():
        answer = post(collector, path, body, headers)
        assert (name, answer.status, answer.body["code"]) == (name, status, code)
        assert answer.body["message"]
    assert request(collector, "GET", "/v1/track", None, {}).status == 405
    assert await stored.collected() == []
    assert await stored.rejected() == []
    assert post(collector, "/v1/track", TRACK).status == 200
    assert psutil.Process(collector.pid).memory_info().rss - before < 30 * 1024 * 1024


async def test_one_bad_event_does_not_cost_the_others(collector: ServiceProcess, stored: Stored) -> None:
    good = [TRACK | {"messageId": f"good-{n}"} for n in range(97)]
    large = TRACK | {"messageId": "large", "properties": {"a": "x" * 40_000}}
    answer = post(collector, "/v1/batch", {"batch": [*good, {"type": "zap", "messageId": "bad"}, 5, large]}, zipped=True)
    assert answer.status == 200
    assert [event.message_id for event in await stored.collected()] == [event["messageId"] for event in good]
    failed = await stored.rejected()
    assert [(event.message_id, event.reason, event.stage) for event in failed] == [
        ("bad", "unknown_event_type", "collector"),
        ("", "malformed_payload", "collector"),
        ("large", "too_large", "collector"),
    ]
    assert json.loads(failed[2].payload) == large
    assert len({event.rejection_id for event in failed}) == 3
    (message,) = await stored.messages(StreamName.REJECTED)
    assert message.headers[envelope.EVENTS] == "3"


async def test_duplicates_are_passed_on(collector: ServiceProcess, stored: Stored) -> None:
    for _ in range(3):
        assert post(collector, "/v1/batch", {"batch": [TRACK, TRACK]}).status == 200
    assert [event.message_id for event in await stored.collected()] == ["m1"] * 6


async def test_concurrent_requests_share_messages_and_keep_their_order(collector: ServiceProcess, stored: Stored) -> None:
    def sender(person: int) -> None:
        for number in range(20):
            assert post(collector, "/v1/track", TRACK | {"userId": f"u{person}", "messageId": f"{number}"}).status == 200

    await asyncio.gather(*(asyncio.to_thread(sender, person) for person in range(8)))
    found = await stored.messages(StreamName.COLLECTED)
    numbers: dict[str, list[int]] = {}
    for event in await stored.collected():
        numbers.setdefault(event.user_id, []).append(int(event.message_id))
    assert numbers == {f"u{person}": list(range(20)) for person in range(8)}
    assert all(message.headers[envelope.SCHEMA] == envelope.EVENT_BATCH_SCHEMA for message in found)
    assert len({message.headers[envelope.MESSAGE_ID] for message in found}) == len(found)
    assert {message.subject for message in found} <= {subject_of(partition) for partition in range(8)}


async def test_nats_away_means_503_and_then_it_recovers(collector: ServiceProcess, module_nats: NatsServer) -> None:
    assert post(collector, "/v1/track", TRACK).status == 200
    module_nats.stop()
    answer = await eventually(lambda: refused(collector))
    assert (answer.body["code"], answer.headers["retry-after"]) == ("dependency_unavailable", "1")
    assert ready(collector) == 503
    module_nats.start()
    await eventually(lambda: post(collector, "/v1/track", TRACK).status == 200)
    await eventually(lambda: ready(collector) == 200)


def refused(collector: ServiceProcess) -> Any:
    answer = post(collector, "/v1/track", TRACK)
    return answer if answer.status == 503 else None


def ready(collector: ServiceProcess) -> int:
    host = type("Ops", (), {"addresses": {"http": collector.ops}})
    return request(host, "GET", "/readyz", None, {}).status  # type: ignore[arg-type]


async def test_a_kill_after_200_loses_nothing(collector: ServiceProcess, stored: Stored) -> None:
    answered: set[str] = set()

    def sender(person: int) -> None:
        for number in range(10_000):
            name = f"{person}-{number}"
            try:
                batch = [TRACK | {"userId": f"{name}-{n}", "messageId": f"{name}-{n}"} for n in range(20)]
                if post(collector, "/v1/batch", {"batch": batch}).status == 200:
                    answered.add(name)
            except CUT_OFF:
                return

    senders = [asyncio.create_task(asyncio.to_thread(sender, person)) for person in range(4)]
    await eventually(lambda: len(answered) >= 40)
    collector.kill()
    await asyncio.gather(*senders)
    collector.start()
    found = Counter(event.message_id.rpartition("-")[0] for event in await stored.collected())
    assert {name: found[name] for name in answered} == dict.fromkeys(answered, 20)


async def test_sigterm_finishes_what_has_begun(collector: ServiceProcess, stored: Stored) -> None:
    outcomes: list[int] = []

    def sender() -> None:
        while True:
            try:
                outcomes.append(post(collector, "/v1/batch", {"batch": [TRACK] * 10}).status)
            except CUT_OFF:
                return

    senders = [asyncio.create_task(asyncio.to_thread(sender)) for _ in range(4)]
    await eventually(lambda: len(outcomes) >= 20)
    collector.terminate()
    assert await asyncio.to_thread(collector.wait) == 0
    await asyncio.gather(*senders)
    collector.start()
    assert set(outcomes) == {200}
    assert len(await stored.collected()) >= 10 * len(outcomes)


async def test_slow_clients_are_let_go_while_others_are_served(collector: ServiceProcess, stored: Stored) -> None:
    host, _, port = collector.addresses["http"].rpartition(":")
    head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n" % BASIC["Authorization"].encode()
    starts = [b"", b"POST /v1/tr", head, head + b"Content-Length: 50\r\n\r\n", head + b"Content-Length: 50\r\n\r\n{"]
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in starts for _ in range(20)]
    for connection, start in zip(slow, starts * 20, strict=True):
        connection.sendall(start)
    began = time.monotonic()
    for _ in range(20):
        assert post(collector, "/v1/track", TRACK).status == 200
    assert time.monotonic() - began < 5
    for connection, start in zip(slow, starts * 20, strict=True):
        answer = await asyncio.to_thread(connection.recv, 65_536)
        assert answer.startswith(b"HTTP/1.1 408 ") if b"\r\n\r\n" in start else answer == b""
        connection.close()
    assert len(await stored.collected()) == 20


async def test_a_head_has_a_limit(collector: ServiceProcess) -> None:
    answer = await asyncio.to_thread(send_raw, collector, b"POST /v1/track HTTP/1.1\r\nX: " + b"x" * 300_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"too_large"' in answer
    answer = await asyncio.to_thread(send_raw, collector, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_payload"' in answer


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}]
)
async def test_headers_about_the_content_are_not_believed(collector: ServiceProcess, headers: Mapping[str, str]) -> None:
    assert post(collector, "/v1/track", TRACK, {**BASIC, **headers}).status == 200
    assert post(collector, "/v1/track", gzip.compress(json.dumps(TRACK).encode()), {**BASIC, **headers}).status == 200
