"""Segment's, RudderStack's and Jitsu's own paths, over HTTP."""

import base64
import gzip
import json
from urllib.parse import urlencode

import pytest

from cdi_cli.embedded import ServiceProcess
from cdi_testing import eventually

from .conftest import BASIC, Stored, apply_source, post, request

TRACK = {"type": "track", "event": "X", "userId": "u1", "messageId": "m1"}
GIF = b"GIF89a"


async def test_a_pixel_stores_its_event(collector: ServiceProcess, stored: Stored) -> None:
    query = urlencode({"data": base64.b64encode(json.dumps(TRACK | {"writeKey": "test-key"}).encode())})
    answer = request(collector, "GET", f"/v1/pixel/track?{query}", None, {})
    assert (answer.status, answer.headers["content-type"], answer.headers["cache-control"]) == (200, "image/gif", "no-store")
    assert answer.body.startswith(GIF)
    arguments = "writeKey=test-key&anonymousId=a1&name=Home&properties.url=x"
    assert request(collector, "GET", f"/pixel/v1/page?{arguments}", None, {}).status == 200
    assert [(event.name, event.user_id, event.anonymous_id) for event in await stored.collected()] == [("X", "u1", ""), ("Home", "", "a1")]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), ("data=???", 400), ("data=W10", 400), ("writeKey=nope&userId=u&event=X", 401), ("writeKey=test-key&event=X", 400)],
)
async def test_a_pixel_is_an_image_even_when_it_is_refused(collector: ServiceProcess, stored: Stored, query: str, status: int) -> None:
    answer = request(collector, "GET", f"/v1/pixel/track?{query}", None, {})
    assert (answer.status, answer.headers["content-type"]) == (status, "image/gif")
    assert answer.body.startswith(GIF)
    assert request(collector, "HEAD", f"/v1/pixel/track?{query}", None, {}).status == 405
    assert await stored.collected() == []


async def test_settings_follow_the_sources(collector: ServiceProcess) -> None:
    path = "/v1/projects/settings-key/settings"
    answer = request(collector, "GET", path, None, {})
    assert (answer.status, answer.body["code"]) == (404, "not_found")
    apply_source(collector, workspace_id="acme", source_id="shown", write_keys=["settings-key"])
    answer = await eventually(lambda: found if (found := request(collector, "GET", path, None, {})).status == 200 else None)
    assert answer.body["integrations"]["Segment.io"]["apiHost"] == collector.addresses["http"] + "/v1"
    head = request(collector, "HEAD", path, None, {})
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", answer.headers["content-length"])
    assert request(collector, "GET", "/sourceConfig/?writeKey=settings-key", None, {}).body["source"]["id"] == "shown"
    apply_source(collector, workspace_id="acme", source_id="shown", write_keys=["settings-key"], disabled=True)
    assert request(collector, "GET", path, None, {}).status == 403
    assert request(collector, "GET", "/sourceConfig/?writeKey=settings-key", None, {}).body["source"]["enabled"] is False
    assert request(collector, "GET", "/sourceConfig?writeKey=nope", None, {}).status == 401


async def test_a_batch_without_its_key_in_the_body_may_be_large(collector: ServiceProcess, stored: Stored) -> None:
    batch = {"batch": [TRACK | {"messageId": f"m{n}", "properties": {"a": "x" * 30_000}} for n in range(120)]}
    assert len(json.dumps(batch)) > 3_500_000
    form = {**BASIC, "Content-Type": "application/x-www-form-urlencoded"}
    assert post(collector, "/v1/batch", batch).status == 200
    assert post(collector, "/v1/batch", gzip.compress(json.dumps(batch).encode()), form).status == 200
    assert len(await stored.collected()) == 240


async def test_a_beacon_and_jitsu_are_known_by_their_keys(collector: ServiceProcess, stored: Stored) -> None:
    apply_source(collector, workspace_id="acme", source_id="jitsu", write_keys=["id:secret"])
    batch = {"batch": [TRACK, {"type": "zap"}]}
    plain = {"Content-Type": "text/plain"}
    assert post(collector, "/beacon/v1/batch?writeKey=test-key", batch, plain).body == {"success": True}
    assert post(collector, "/beacon/v1/batch?writeKey=nope", batch, plain).status == 401
    answer = post(collector, "/api/s/s2s/batch", batch | {"writeKey": "id:***"}, {"X-Write-Key": "id:secret", "X-IP-Policy": "remove"})
    assert (answer.status, answer.body) == (200, {"ok": True})
    assert post(collector, "/api/s/track", TRACK | {"writeKey": "test-key"}, {"X-Write-Key": "id:***"}).status == 401
    assert [(event.source_id, event.client_ip) for event in await stored.collected()] == [("web", "127.0.0.1"), ("jitsu", "")]
    assert [event.reason for event in await stored.rejected()] == ["unknown_event_type"] * 2
