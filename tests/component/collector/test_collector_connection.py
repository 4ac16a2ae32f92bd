"""HTTP/1.1 as the door speaks it, byte by byte."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from cdi_cli.embedded import ServiceProcess
from cdi_collector.admission import Budget
from cdi_collector.http.connection import written
from cdi_collector.http.exchange import Exchange
from cdi_collector.http.responses import Response
from cdi_testing import eventually

from .conftest import BASIC, Stored, post

AUTHORIZATION = b"Authorization: %s\r\n" % BASIC["Authorization"].encode()
IMPATIENT = {"CDI_KEEP_ALIVE_SECONDS": "1", "CDI_MAX_CONNECTIONS": "5", "CDI_MAX_IN_FLIGHT_BYTES": str(1024 * 1024)}


def tracked(message_id: str, *headers: bytes, path: bytes = b"/v1/track", version: bytes = b"1.1") -> bytes:
    body = json.dumps({"event": "Seen", "userId": "u1", "messageId": message_id}).encode()
    lines = [b"POST %s HTTP/%s" % (path, version), b"Host: x", AUTHORIZATION.strip(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def in_chunks(message_id: str) -> bytes:
    head, _, body = tracked(message_id).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:6], body[6:]))
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"


class Talk:
    """A connection and what has come over it."""

    def __init__(self, collector: ServiceProcess) -> None:
        host, _, port = collector.addresses["http"].rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    async def say(self, data: bytes) -> None:
        await asyncio.to_thread(self.socket.sendall, data)

    async def hear(self, *, body: bool = True) -> tuple[int, bytes]:
        """The status and the body of the next answer; status 0 at the end of the connection. A HEAD has no body."""
        head = await self._until(b"\r\n\r\n")
        if not head:
            return 0, b""
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        while body and len(self._left) < length:
            self._left += await asyncio.to_thread(self.socket.recv, 65_536)
        content, self._left = (self._left[:length], self._left[length:]) if body else (b"", self._left)
        return int(head[9:12]), content

    async def _until(self, end: bytes) -> bytes:
        while end not in self._left:
            received = await asyncio.to_thread(self.socket.recv, 65_536)
            if not received:
                return b""
            self._left += received
        head, _, self._left = self._left.partition(end)
        return head


@pytest.fixture
def talk(collector: ServiceProcess) -> Iterator[Talk]:
    talking = Talk(collector)
    with talking.socket:
        yield talking


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_requests_in_a_row_are_answered_in_their_order_however_their_bytes_come(talk: Talk, stored: Stored, size: int) -> None:
    script = b"".join(
        (
            tracked("m1"),
            b"HEAD /v1/projects/test-key/settings HTTP/1.1\r\nHost: x\r\n\r\n",
            in_chunks("m2"),
            tracked("x", path=b"/nothing/here"),
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n\r\n",
            tracked("m3", path=b"http://collector.example/v1/track?a=b"),
            tracked("m4", b"Upgrade: h2c", b"Connection: Upgrade"),
            b"POST /v1/track HTTP/1.1\r\n" + AUTHORIZATION + b"Content-Length: 3\r\n\r\n{a}",
            tracked("m5", path=b"/v1/%74rack"),
            tracked("m6", b"Connection: close"),
            tracked("never"),
        )
    )
    for start in range(0, len(script), size):
        await talk.say(script[start : start + size])
    statuses = [(await talk.hear(body=number != 1))[0] for number in range(10)]
    assert statuses == [200, 200, 200, 404, 204, 200, 200, 400, 200, 200]
    assert await talk.hear() == (0, b"")
    assert [event.message_id for event in await stored.collected()] == ["m1", "m2", "m3", "m4", "m5", "m6"]


async def test_a_client_that_asks_first_is_told_to_go_on_or_why_not(talk: Talk, stored: Stored) -> None:
    head, _, body = tracked("m1", b"Expect: 100-continue").partition(b"\r\n\r\n")
    await talk.say(head + b"\r\n\r\n")
    assert await talk.hear() == (100, b"")
    await talk.say(body)
    assert (await talk.hear())[0] == 200
    await talk.say(head.replace(AUTHORIZATION.strip(), b"Authorization: Basic eDo=") + b"\r\n\r\n")
    assert (await talk.hear())[0] == 401
    assert len(await stored.collected()) == 1


async def test_what_cannot_be_taken_is_refused_before_it_has_come_and_the_connection_lives(talk: Talk, stored: Stored) -> None:
    await talk.say(b"POST /v1/track HTTP/1.1\r\n" + AUTHORIZATION + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
    assert (await talk.hear())[0] == 413
    await talk.say(b"x" * 50_000 + tracked("m1"))
    assert (await talk.hear())[0] == 200
    await talk.say(b"POST /v1/track HTTP/1.1\r\n" + AUTHORIZATION + b"Transfer-Encoding: chunked\r\n\r\n")
    await talk.say(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    assert (await talk.hear())[0] == 413
    await talk.say(b"0\r\n\r\n" + tracked("m2"))
    assert (await talk.hear())[0] == 200
    assert [event.message_id for event in await stored.collected()] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("bytes_", "statuses"),
    [
        (b"hello\r\n\r\n", [400]),
        (tracked("m1") + b"hello\r\n\r\n", [200]),
        (b"POST /v1/track HTTP/1.1\r\n" + AUTHORIZATION + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", [400]),
        (b"POST /nothing HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", [404]),
        (b"POST /v1/track HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
        (b"POST /v1/track HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", [400]),
        (b"POST /v1/track HTTP/1.1\r\nContent-Length: -1\r\n\r\n", [400]),
        (b"POST /v1/\xfftrack HTTP/1.1\r\n\r\n", [400]),
        (b"POST /v1/%ff%00track HTTP/1.1\r\nConnection: close\r\n\r\n", [404]),
        (tracked("m1", version=b"1.0"), [200]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    ],
)
async def test_the_connection_ends_after(talk: Talk, bytes_: bytes, statuses: list[int]) -> None:
    await talk.say(bytes_)
    heard = []
    while (status := (await talk.hear())[0]) != 0:
        heard.append(status)
    assert heard == statuses


async def test_clients_that_have_said_all_are_still_answered_and_then_let_go(collector: ServiceProcess) -> None:
    talks = [Talk(collector) for _ in range(20)]
    for talk in talks:
        await talk.say(tracked("m1") + tracked("m2"))
        assert (await talk.hear())[0] == 200
    held = psutil.Process(collector.pid).num_fds()
    for talk in talks:
        await talk.say(tracked("m3"))
        talk.socket.shutdown(socket.SHUT_WR)
        assert [(await talk.hear())[0] for _ in range(3)] == [200, 200, 0]
    await eventually(lambda: psutil.Process(collector.pid).num_fds() < held - len(talks) // 2)
    for talk in talks:
        talk.socket.close()


async def test_a_client_that_goes_away_takes_nothing_with_it(collector: ServiceProcess, stored: Stored) -> None:
    talks = [Talk(collector) for _ in range(20)]
    for number, talk in enumerate(talks):
        await talk.say(tracked(f"whole-{number}") + tracked("half")[:-3])
    for talk in talks:
        talk.socket.close()
    await eventually(lambda: post(collector, "/v1/track", {"event": "Seen", "userId": "u1", "messageId": "last"}).status == 200)
    found = {event.message_id for event in await stored.collected()}
    assert found == {*(f"whole-{number}" for number in range(20)), "last"}


async def test_a_client_that_does_not_read_its_answers_is_not_read_either(collector: ServiceProcess) -> None:
    talk = Talk(collector)

    def send_all() -> int:
        sent = 0
        try:
            while sent < 200_000_000:
                sent += talk.socket.send(request * 1_000)
        except TimeoutError:
            return sent
        raise AssertionError("the collector reads on and on")

    with talk.socket:
        memory = psutil.Process(collector.pid).memory_info().rss
        request = b"OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n\r\n"
        talk.socket.settimeout(1.0)
        sent = await asyncio.to_thread(send_all)
        assert psutil.Process(collector.pid).memory_info().rss - memory < 30_000_000
        talk.socket.settimeout(10.0)
        for _ in range(sent // len(request)):
            assert (await talk.hear())[0] == 204
        await talk.say(request[sent % len(request) :] if sent % len(request) else b"")


@pytest.fixture(scope="module")
def impatient(collector: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A second replica, with small limits."""
    environment = {name: value for name, value in collector.environment.items() if not name.endswith("_ADDRESS")} | IMPATIENT
    process = ServiceProcess("collector", environment, tmp_path_factory.mktemp("impatient"))
    with process:
        yield process


async def test_idle_connections_are_closed_and_others_are_not(impatient: ServiceProcess) -> None:
    talk = Talk(impatient)
    with talk.socket:
        began = time.monotonic()
        await talk.say(tracked("m1"))
        assert (await talk.hear())[0] == 200
        assert await talk.hear() == (0, b"")
        assert 0.9 <= time.monotonic() - began < 5


async def test_connections_over_the_limit_are_closed_at_once(impatient: ServiceProcess) -> None:
    talks = [Talk(impatient) for _ in range(8)]
    closed = 0
    for talk in talks:
        with talk.socket:
            try:
                await talk.say(tracked("m1", b"Connection: close"))
                closed += (await talk.hear())[0] == 0
            except OSError:
                closed += 1
    assert closed == 3
    assert await eventually(lambda: post(impatient, "/v1/track", {"event": "Seen", "userId": "u1"}).status == 200)


async def test_bodies_of_clients_that_went_away_are_not_held(impatient: ServiceProcess) -> None:
    head = b"POST /v1/batch HTTP/1.1\r\n" + AUTHORIZATION + b"Content-Length: 400000\r\n\r\n"
    for _ in range(5):
        talks = [Talk(impatient) for _ in range(2)]
        for talk in talks:
            await talk.say(head + b"x" * 390_000)
        for talk in talks:
            talk.socket.close()
    assert await eventually(lambda: post(impatient, "/v1/track", {"event": "Seen", "userId": "u1"}).status == 200)


def test_no_header_can_begin_another_one() -> None:
    answer = written(
        Exchange("GET", "/", b"", {}, "", Budget(1, 1)),
        Response(302, b"", ((b"location", b"https://a/\r\nset-cookie: b"),)),
        b"now",
        ends=False,
    )
    assert answer.split(b"\r\n")[2] == b"location: https://a/  set-cookie: b"
