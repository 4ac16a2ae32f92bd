"""The operators' HTTP port: answers to requests of every kind."""

import json

import pytest

from cdi_runtime.service import HttpRequest, ServiceContext
from cdi_runtime.service.ops import answer


@pytest.fixture
async def context() -> ServiceContext:
    return ServiceContext("example")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/livez", 200),
        ("HEAD", "/livez", 200),
        ("GET", "/livez?verbose=1", 200),
        ("GET", "/metrics", 200),
        ("GET", "/../etc/passwd", 404),
        ("POST", "/livez", 405),
        ("\x16\x03\x01\x00", "", 405),
        ("", "", 405),
    ],
)
async def test_status(context: ServiceContext, method: str, target: str, status: int) -> None:
    assert answer(context, HttpRequest(method, target, {})).status == status


async def test_readiness_says_every_reason(context: ServiceContext) -> None:
    context.readiness.add("nats", lambda: "not connected")
    context.readiness.add("database", lambda: None)
    status, body, _ = answer(context, HttpRequest("GET", "/readyz", {}))
    assert (status, json.loads(body)) == (503, {"nats": "not connected"})
    context.readiness.remove("nats")
    assert answer(context, HttpRequest("GET", "/readyz", {})).status == 200
