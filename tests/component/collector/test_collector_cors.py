"""What browsers need: preflights, the CORS headers on every answer, HEAD and the methods of a path."""

import pytest

from cdi_cli.embedded import ServiceProcess

from .conftest import BASIC, Stored, post, request

ORIGIN = {"Origin": "https://shop.example"}
TRACK = {"event": "X", "userId": "u1"}
# From the preflights of @rudderstack/analytics-js, @segment/analytics-next, Snowplow's browser tracker and @jitsu/js.
ASKED = ["anonymousid,authorization,content-type,sentat", "authorization", "content-type", "content-type,sp-anonymous", "x-write-key"]


@pytest.mark.parametrize("path", ["/v1/track", "/v1/b", "/nowhere", "/"])
@pytest.mark.parametrize("asked", ASKED)
async def test_a_preflight_allows_what_sdks_send(collector: ServiceProcess, path: str, asked: str) -> None:
    headers = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = request(collector, "OPTIONS", path, None, headers)
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    assert set(asked.split(",")) <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert int(answer.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize(("key", "status"), [("Basic dGVzdC1rZXk6", 200), ("Basic bm9wZTo=", 401)])
async def test_every_answer_can_be_read_by_its_page(collector: ServiceProcess, key: str, status: int) -> None:
    answer = post(collector, "/v1/track", TRACK, {**ORIGIN, "Authorization": key})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "Retry-After, X-RateLimit-Reset"
    assert answer.headers["vary"] == "Origin"


async def test_without_an_origin_nothing_is_said(collector: ServiceProcess) -> None:
    answer = post(collector, "/v1/track", TRACK)
    assert [name for name in answer.headers if name.startswith("access-control") or name == "vary"] == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_other_methods_are_named(collector: ServiceProcess, stored: Stored, method: str) -> None:
    answer = request(collector, method, "/v1/track", None, {**BASIC, **ORIGIN})
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert await stored.collected() == []
