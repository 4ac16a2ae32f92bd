"""Real SDKs in a real browser, on pages of another origin than the collector's: every call they have, and what they send when a page goes.

Chromium and the SDKs' own bundles come from npm (``chromium.py``).
"""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from cdi.collector.v1.source_pb2 import RateLimit
from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_runtime.bus import connect

from .chromium import Browser, browser
from .conftest import Stored, apply_source
from .shop import SITE, VISITOR, Shop, paths

JITSU_KEY = "keyid:keysecret"
NOTE = "ü€😀"
ORDER = {"total": 19.95, "note": NOTE}
LATER = 600_000
"""Milliseconds: longer than any page stays."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def shop(chromium: Browser, collector: ServiceProcess, stored: Stored) -> Shop:
    return Shop(chromium, collector, stored)


def page(name: str, **properties: Any) -> dict[str, Any]:
    """What Segment's and RudderStack's SDKs say of a page by themselves, and what its call says."""
    own = {"url": f"{SITE}/{name}.html", "path": f"/{name}.html", "search": "", "title": "Shop", "referrer": "", "name": "Home"}
    return {"type": "page", "name": "Home", "anonymous_id": VISITOR, "properties": own | properties}


def calls_after(first: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of Segment's and RudderStack's pages; after the last but one the visitor is somebody else."""
    known = {"user_id": "u1", "anonymous_id": VISITOR}
    return [
        first,
        {"type": "identify", **known, "traits": {"email": "a@b.co"}},
        {"type": "track", "name": "Order Completed", **known, "properties": ORDER},
        {"type": "group", **known, "group_id": "g1", "traits": {"plan": "pro"}},
        {"type": "alias", **known, "previous_id": "u0"},
        {"type": "track", "name": "Left", "properties": {}},
    ]


def stranger(last: dict[str, Any]) -> str:
    """The anonymous id of an event after a reset, taken out of it."""
    anonymous_id = str(last.pop("anonymous_id"))
    assert UUID(anonymous_id)
    return anonymous_id


async def test_segment_by_its_snippet(shop: Shop) -> None:
    shop.open("segment")
    await shop.stored(6)
    events, asked = await shop.left(6)
    said = shop.said(events)
    assert stranger(said[-1])
    assert said == calls_after(page("segment", shelf=3, category="Docs") | {"category": "Docs"})
    assert {event.client_ip for event in events} == {"127.0.0.1"}
    posts = {"/v1/p", "/v1/i", "/v1/t", "/v1/g", "/v1/a"}
    assert paths(asked) == {"GET": {"/v1/projects/test-key/settings"}, "OPTIONS": posts, "POST": posts}


async def test_segment_sends_its_batch_when_the_page_goes(shop: Shop) -> None:
    shop.open("segment-npm", deliveryStrategy={"strategy": "batching", "config": {"size": 100, "timeout": LATER}})
    events, asked = await shop.left(3)
    assert shop.said(events) == calls_after(page("segment-npm"))[:3]
    assert paths(asked) == {"GET": {"/v1/projects/test-key/settings"}}


async def test_segment_waits_as_it_is_told_and_sends_again(shop: Shop, collector: ServiceProcess) -> None:
    """It is told in a header that only CORS lets it see."""
    rate = RateLimit(events_per_second=0.2, burst=2)  # Three calls are sooner than five seconds, on a busy machine too.
    apply_source(collector, workspace_id="acme", source_id="slow", write_keys=["slow-key"], rate_limit=rate)
    shop.open("segment-npm", "slow-key")
    await shop.stored(3)
    events, asked = await shop.left(3, refused=1)
    assert shop.said(events) == calls_after(page("segment-npm"))[:3]
    assert [status for method, _, status in asked if method == "POST"] == [200, 200, 429, 200]


async def test_a_page_that_its_source_does_not_list_is_shut_out(shop: Shop, collector: ServiceProcess) -> None:
    apply_source(collector, workspace_id="acme", source_id="closed", write_keys=["closed-key"], allowed_origins=["https://shop.example"])
    shop.open("segment-npm", "closed-key")
    visit = await shop.shut_out()
    assert {failure.rpartition(" ")[2] for failure in visit.failures} == {"net::ERR_FAILED"}
    assert [error for error in visit.errors if "blocked by CORS policy" in error]


async def test_rudderstack(shop: Shop) -> None:
    shop.open("rudderstack")
    await shop.stored(6)
    events, asked = await shop.left(6)
    check_rudderstack(shop.said(events))
    assert {event.client_ip for event in events} == {"127.0.0.1"}
    posts = {f"/v1/{kind}" for kind in ("page", "identify", "track", "group", "alias")}
    assert paths(asked) == {"GET": {"/sourceConfig/"}, "OPTIONS": {"/sourceConfig/", *posts}, "POST": posts}


async def test_rudderstack_sends_its_beacon_when_the_page_goes(shop: Shop) -> None:
    shop.open("rudderstack", useBeacon=True, beaconQueueOptions={"maxItems": 100, "flushQueueInterval": LATER})
    events, asked = await shop.left(6)
    check_rudderstack(shop.said(events))
    assert paths(asked) == {"GET": {"/sourceConfig/"}, "OPTIONS": {"/sourceConfig/"}}


def check_rudderstack(said: list[dict[str, Any]]) -> None:
    nobody = {"referrer": "$direct", "referring_domain": "", "tab_url": f"{SITE}/rudderstack.html"}
    assert stranger(said[-1])
    said[0]["properties"] = {name: value for name, value in said[0]["properties"].items() if not name.startswith("initial_")}
    assert said == calls_after(page("rudderstack", shelf=3, category="Docs", **nobody) | {"category": "Docs"})


SNOWPLOW = [
    {
        "type": "page",
        "anonymous_id": VISITOR,
        "properties": {"url": f"{SITE}/snowplow.html", "path": "/snowplow.html", "search": "", "title": "Home"},
    },
    {
        "type": "track",
        "name": "add",
        "user_id": "u1",
        "anonymous_id": VISITOR,
        "properties": {"category": "shop", "action": "add", "label": "cup", "property": "red", "value": 2.5},
    },
    {
        "type": "self_describing",
        "name": "order",
        "user_id": "u1",
        "anonymous_id": VISITOR,
        "schema_uri": "iglu:com.acme/order/jsonschema/1-0-0",
        "properties": {"revenue": 19.95, "note": NOTE},
    },
]
TP2 = "/com.snowplowanalytics.snowplow/tp2"


def context_of(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.context)["snowplow"]
    return found


@pytest.mark.parametrize("encoded", [True, False])
async def test_snowplow(shop: Shop, encoded: bool) -> None:
    shop.open("snowplow", encodeBase64=encoded)
    await shop.stored(3)
    events, asked = await shop.left(3)
    assert shop.said(events) == SNOWPLOW
    order = next(event for event in events if event.schema_uri)
    assert {"schema": "iglu:com.acme/ctx/jsonschema/1-0-0", "data": {"k": 1}} in context_of(order)["entities"]
    assert paths(asked) == {"OPTIONS": {TP2}, "POST": {TP2}}


async def test_snowplow_sends_its_buffer_when_the_page_goes(shop: Shop) -> None:
    shop.open("snowplow", bufferSize=100, keepalive=True)
    events, asked = await shop.left(3)
    assert shop.said(events) == SNOWPLOW
    assert asked == []


@pytest.mark.parametrize(("elsewhere", "secure", "users"), [(False, False, 1), (True, True, 1), (True, False, 3)])
async def test_the_browser_keeps_the_cookie_of_snowplow(shop: Shop, elsewhere: bool, secure: bool, users: int) -> None:
    """In three requests, one after the other, it is one user; at another site, only if the cookie may be sent there."""
    shop.open("snowplow", elsewhere=elsewhere, secure=secure, eventMethod="get")
    await shop.stored(3)
    events, asked = await shop.left(3)
    assert shop.said(events) == SNOWPLOW
    assert len({context_of(event)["network_userid"] for event in events}) == users
    assert asked == [("GET", "/i", 200)] * 3


async def test_snowplow_keeps_nothing_of_somebody_anonymous(shop: Shop) -> None:
    shop.open("snowplow", anonymousTracking={"withServerAnonymisation": True})
    await shop.stored(3)
    events, asked = await shop.left(3)
    for event in events:
        assert (event.user_id, event.anonymous_id, event.client_ip) == ("", event.message_id, "")
        assert context_of(event).keys().isdisjoint({"network_userid", "duid", "sid", "vid"})
    assert paths(asked) == {"OPTIONS": {TP2}, "POST": {TP2}}


async def test_jitsu(shop: Shop, collector: ServiceProcess) -> None:
    apply_source(collector, workspace_id="acme", source_id="jitsu", write_keys=[JITSU_KEY])
    shop.open("jitsu", JITSU_KEY)
    await shop.stored(5)
    events, asked = await shop.left(5)
    said = shop.said(events)
    assert stranger(said[-1])
    *expected, _, left = calls_after(page("jitsu", shelf=3, hash="", width=800, height=600))
    del expected[0]["properties"]["referrer"]
    assert said == [*expected, left]
    posts = {f"/api/s/{kind}" for kind in ("page", "identify", "track", "group")}
    assert paths(asked) == {"OPTIONS": posts, "POST": posts}


async def test_posthog(shop: Shop) -> None:
    shop.open("posthog")
    await shop.stored(7)
    events, asked = await shop.left(8)
    check_posthog(shop.said(events), events)
    assert paths(asked) == {"GET": {"/array/test-key/config.js"}, "POST": {"/e/", "/flags/"}}


async def test_posthog_sends_its_queue_when_the_page_goes(shop: Shop) -> None:
    shop.open("posthog", advanced_disable_feature_flags=True, request_queue_config={"flush_interval_ms": 5_000})
    # Only these are sent at once.
    assert {event.type for event in await shop.stored(2)} == {event_pb2.EVENT_TYPE_PAGE, event_pb2.EVENT_TYPE_IDENTIFY}
    events, asked = await shop.left(8)
    check_posthog(shop.said(events), events)
    assert sorted(asked) == [("GET", "/array/test-key/config.js", 200), ("POST", "/e/", 200), ("POST", "/e/", 200)]


def check_posthog(said: list[dict[str, Any]], events: list[Event]) -> None:
    known = {"user_id": "u1", "anonymous_id": VISITOR, "properties": {}}
    gone = said[-1]["anonymous_id"]
    assert UUID(gone)
    assert said == [
        {"type": "page", "anonymous_id": VISITOR, "properties": {"title": "Shop"}},
        {"type": "identify", **known, "traits": {"email": "a@b.co"}},
        {"type": "identify", **known, "traits": {"plan": "free"}},
        {"type": "track", "name": "Order Completed", "anonymous_id": VISITOR, "properties": ORDER},
        {"type": "group", **known, "group_id": "g1", "traits": {"plan": "pro"}},
        {"type": "alias", "user_id": "u2", "previous_id": "u1", "properties": {"alias": "u2"}},
        {"type": "track", "name": "Left", "anonymous_id": gone, "properties": {}},
        {"type": "track", "name": "$pageleave", "anonymous_id": gone, "properties": {}},
    ]
    for event in events:
        properties = json.loads(event.properties)
        assert properties["distinct_id"] in (event.user_id, event.previous_id, event.anonymous_id)
        assert (properties["$lib"], properties["$pathname"]) == ("web", "/posthog.html")


async def test_nothing_came_again(module_nats: NatsServer, collector: ServiceProcess) -> None:
    """Looks at all that the pages before have sent, with the time that they had for sending it twice."""
    async with connect(module_nats.url, "test") as bus:
        events = await Stored(bus).collected()
    assert len({event.message_id for event in events}) == len(events)
