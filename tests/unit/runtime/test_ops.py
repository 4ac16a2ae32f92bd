"""The operators' HTTP port: answers to request heads of every kind."""

import json

import pytest

from cdi_runtime.service import ServiceContext
from cdi_runtime.service.ops import answer


@pytest.fixture
async def context() -> ServiceContext:
    return ServiceContext("example")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 200),
        (b"GET /livez?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\x00\r\n\r\n", 405),
        (b"\r\n\r\n", 405),
    ],
)
async def test_status(context: ServiceContext, head: bytes, status: int) -> None:
    assert answer(context, head)[0] == status


async def test_readiness_says_every_reason(context: ServiceContext) -> None:
    context.readiness.add("nats", lambda: "not connected")
    context.readiness.add("database", lambda: None)
    status, _, body = answer(context, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert (status, json.loads(body)) == (503, {"nats": "not connected"})
    context.readiness.remove("nats")
    assert answer(context, b"GET /readyz HTTP/1.1\r\n\r\n")[0] == 200
