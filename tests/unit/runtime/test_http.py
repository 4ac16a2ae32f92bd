"""The small HTTP port: what a stranger may send, over a real connection."""

import asyncio
from http import HTTPStatus

import pytest

from cdi_kernel.faults import Unavailable
from cdi_runtime.service import HttpAnswer, HttpLimits, HttpRequest, serve_http

LIMITS = HttpLimits(head_bytes=512, body_bytes=8, seconds=0.3)


async def echo(request: HttpRequest) -> HttpAnswer:
    if request.target == "/broken":
        raise RuntimeError("a bug")
    return HttpAnswer(HTTPStatus.OK, f"{request.method} {request.target} {request.headers.get('x')} ".encode() + request.body, "text/plain")


async def sent(bound: str, request: bytes) -> bytes:
    host, _, port = bound.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "first", "last"),
    [
        (b"GET /a?b=1 HTTP/1.1\r\nX: 1\r\n\r\n", b"HTTP/1.1 200 OK", b"GET /a?b=1 1 "),
        (b"POST / HTTP/1.0\r\nx:2\r\nContent-Length: 4\r\n\r\nbody and more", b"HTTP/1.1 200 OK", b"POST / 2 body"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789", b"HTTP/1.1 413 Request Entity Too Large", b"{}"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", b"HTTP/1.1 413 Request Entity Too Large", b"{}"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 411 Length Required", b"{}"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 411 Length Required", b"{}"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"HTTP/1.1 500 Internal Server Error", b"{}"),
        (b"\x16\x03\x01\x00\r\n\r\n", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x00  None "),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 600 + b"\r\n\r\n", b"", b""),
        (b"GET / HTTP/1.1\r\n", b"", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo", b"", b""),
    ],
)
async def test_one_request_gets_one_answer_or_none(request_bytes: bytes, first: bytes, last: bytes) -> None:
    async with serve_http("127.0.0.1:0", echo, LIMITS) as bound:
        head, _, body = (await sent(bound, request_bytes)).partition(b"\r\n\r\n")
        assert (head.partition(b"\r\n")[0], body) == (first, last)


async def test_more_connections_than_are_answered_at_once_wait() -> None:
    async with serve_http("127.0.0.1:0", echo, HttpLimits(seconds=5.0, connections=2)) as bound:
        answers = await asyncio.gather(*(sent(bound, b"GET / HTTP/1.1\r\n\r\n") for _ in range(20)))
    assert all(answer.endswith(b"GET / None ") for answer in answers)


async def test_an_address_that_is_taken() -> None:
    async with serve_http("127.0.0.1:0", echo, LIMITS) as bound:
        with pytest.raises(Unavailable):
            async with serve_http(bound, echo, LIMITS):
                pass
