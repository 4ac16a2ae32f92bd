"""Snowplow's trackers at the HTTP door: the real Python tracker, the cookie, SP-Anonymous, the pixel, the redirect."""

import json
import re
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from snowplow_tracker import (
    Emitter,
    EmitterConfiguration,
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    Snowplow,
    StructuredEvent,
    Subject,
    Tracker,
)

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess

from .conftest import Answer, Stored, apply_source, request

TRACKER = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
APP = "test-key"
MADE = r'(?<="network_userid": ")[0-9a-f-]{36}'
COOKIE = re.compile(r"sp=([0-9a-f-]{36}); Max-Age=31536000; Path=/; HttpOnly(; SameSite=None; Secure)?")
PIXEL = b"GIF89a"
CART = {"schema": "iglu:com.acme/cart/jsonschema/1-0-3", "data": {"items": [1, 2.5, {"sku": "é?>"}]}}
USER = {"schema": "iglu:com.acme/user/jsonschema/2-0-0", "data": {"plan": None}}


def send(collector: ServiceProcess, *items: Mapping[str, Any], path: str = TRACKER, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps({"schema": PAYLOAD, "data": items}).encode()
    return request(collector, "POST", path, body, {"Content-Type": "application/json; charset=utf-8"} | dict(headers or {}))


def ask(collector: ServiceProcess, path: str, headers: Mapping[str, str] | None = None, **parameters: str) -> Answer:
    return request(collector, "GET", f"{path}?{urllib.parse.urlencode(parameters)}", None, headers or {})


def own(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.context)["snowplow"]
    return found


def tracker_of(collector: ServiceProcess, method: Any, encode_base64: bool, failures: list[Any]) -> tuple[Tracker, Emitter]:
    host, _, port = collector.addresses["http"].rpartition(":")
    emitter = Emitter(host, protocol="http", port=int(port), method=method, on_failure=lambda _, failed: failures.extend(failed))
    subject = Subject().set_platform("web").set_user_id("u1").set_domain_user_id("d1").set_domain_session_id("s1").set_network_user_id("n1")
    subject.set_screen_resolution(1280, 720).set_viewport(800, 600).set_color_depth(24).set_timezone("Europe/Berlin").set_lang("de")
    subject.set_ip_address("203.0.113.9").set_useragent("Mozilla/5.0 (X11)").set_domain_session_index(3)
    return Tracker("py", emitter, subject, APP, encode_base64), emitter


SUBJECT_CONTEXT = {
    "ip": "203.0.113.9",
    "userAgent": "Mozilla/5.0 (X11)",
    "locale": "de",
    "timezone": "Europe/Berlin",
    "screen": {"width": 1280, "height": 720, "innerWidth": 800, "innerHeight": 600},
    "library": {"name": "snowplow-py", "version": "1.1.0", "namespace": "py"},
}
SUBJECT_PARAMETERS = {"p": "web", "sid": "s1", "tnuid": "n1", "cd": "24", "vid": "3", "aid": APP, "network_userid": "<made>"}


@pytest.mark.parametrize("encode_base64", [True, False])
@pytest.mark.parametrize("method", ["post", "get"])
async def test_every_call_of_the_python_tracker(collector: ServiceProcess, stored: Stored, method: str, encode_base64: bool) -> None:
    failures: list[Any] = []
    tracker, emitter = tracker_of(collector, method, encode_base64, failures)
    entities = [SelfDescribingJson(entity["schema"], entity["data"]) for entity in (CART, USER)]
    order = SelfDescribingJson("iglu:com.acme/order/jsonschema/1-0-0", {"total": 19.95, "note": "ü?>"})
    ids = [
        tracker.track(PageView("https://ex.com/a?b=c", "Ä", "https://google.com/", context=entities)),
        tracker.track(PagePing("https://ex.com/a", "A", min_x=0, max_x=100, min_y=5, max_y=900)),
        tracker.track(SelfDescribing(order, true_timestamp=1767323045000)),
        tracker.track(StructuredEvent("shop", "add", "label", "property", 2.5)),
        tracker.track(ScreenView("8a3b0e5c-0000-4000-8000-000000000000", "Home", type="feed")),
    ]
    with pytest.warns(DeprecationWarning, match="track_ecommerce_transaction"):
        tracker.track_ecommerce_transaction(
            "007", 19.95, "web", 1, 2, "Bonn", "NW", "DE", "EUR", items=[{"sku": "1", "price": 9.5, "quantity": 2, "name": "Cup"}]
        )
    emitter.flush()
    assert failures == []

    found = {event.message_id: event for event in await stored.collected()}
    view, ping, custom, struct, screen = (found.pop(str(message_id)) for message_id in ids)
    transaction, item = sorted(found.values(), key=lambda event: len(event.name))
    page = {"url": "https://ex.com/a?b=c", "path": "/a", "search": "?b=c", "title": "Ä", "referrer": "https://google.com/"}
    assert shape(view) == ("EVENT_TYPE_PAGE", "", "", page)
    assert context_of(view) == SUBJECT_CONTEXT | {"page": page, "snowplow": SUBJECT_PARAMETERS | {"entities": [CART, USER]}}
    assert shape(ping) == (
        "EVENT_TYPE_TRACK",
        "Page Ping",
        "",
        {"x_offset_min": 0, "x_offset_max": 100, "y_offset_min": 5, "y_offset_max": 900},
    )
    assert context_of(ping) == SUBJECT_CONTEXT | {
        "page": {"url": "https://ex.com/a", "path": "/a", "search": "", "title": "A"},
        "snowplow": SUBJECT_PARAMETERS,
    }
    assert shape(custom) == ("EVENT_TYPE_SELF_DESCRIBING", "order", "iglu:com.acme/order/jsonschema/1-0-0", {"total": 19.95, "note": "ü?>"})
    assert custom.event_time.ToMicroseconds() == 1767323045000000
    assert shape(struct) == (
        "EVENT_TYPE_TRACK",
        "add",
        "",
        {"category": "shop", "action": "add", "label": "label", "property": "property", "value": 2.5},
    )
    assert shape(screen) == (
        "EVENT_TYPE_SELF_DESCRIBING",
        "screen_view",
        "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0",
        {"id": "8a3b0e5c-0000-4000-8000-000000000000", "name": "Home", "type": "feed"},
    )
    assert shape(transaction)[1:] == (
        "Transaction",
        "",
        {
            "order_id": "007",
            "affiliation": "web",
            "total": 19.95,
            "tax": 1,
            "shipping": 2,
            "city": "Bonn",
            "state": "NW",
            "country": "DE",
            "currency": "EUR",
        },
    )
    assert shape(item)[1:] == (
        "Transaction Item",
        "",
        {"order_id": "007", "sku": "1", "name": "Cup", "price": 9.5, "quantity": 2, "currency": "EUR"},
    )
    for event in (view, ping, custom, struct, screen, transaction, item):
        assert (event.workspace_id, event.source_id, event.user_id, event.anonymous_id) == ("acme", "web", "u1", "d1")
        assert event.HasField("original_time")
        assert event.HasField("sent_time")
    assert await stored.rejected() == []


def shape(event: Event) -> tuple[str, str, str, dict[str, Any]]:
    return event_pb2.EventType.Name(event.type), event.name, event.schema_uri, json.loads(event.properties)


def context_of(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.sub(MADE, "<made>", json.dumps(json.loads(event.context))))
    return found


async def test_a_tracker_with_an_unknown_app_id_is_told(collector: ServiceProcess, stored: Stored) -> None:
    failures: list[Any] = []
    host, _, port = collector.addresses["http"].rpartition(":")
    configuration = EmitterConfiguration(batch_size=1, on_failure=lambda _, failed: failures.extend(failed))
    tracker = Snowplow.create_tracker("unknown", f"http://{host}:{port}", app_id="nobody", emitter_config=configuration)
    tracker.track(PageView("https://ex.com/"))
    assert [failed["aid"] for failed in failures] == ["nobody"]
    assert await stored.collected() == []


@pytest.mark.parametrize("path", [TRACKER, "/com.acme/track"])
async def test_post(collector: ServiceProcess, stored: Stored, path: str) -> None:
    answer = send(collector, {"e": "pv", "eid": "e1", "aid": APP}, path=path)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"ok", "text/plain; charset=utf-8")
    (event,) = await stored.collected()
    assert (event.message_id, event.client_ip) == ("e1", "127.0.0.1")


@pytest.mark.parametrize("path", ["/i", TRACKER, "/com.acme/track"])
async def test_the_pixel(collector: ServiceProcess, stored: Stored, path: str) -> None:
    answer = ask(collector, path, e="pv", eid="e1", aid=APP, page="a é")
    assert (answer.status, answer.body[:6], answer.headers["content-type"]) == (200, PIXEL, "image/gif")
    (event,) = await stored.collected()
    assert (event.message_id, json.loads(event.properties)) == ("e1", {"title": "a é"})
    unknown = ask(collector, path, e="pv", aid="nobody")
    assert unknown.status == 401
    assert await stored.collected() == [event]


async def test_the_cookie_of_the_network_user(collector: ServiceProcess, stored: Stored) -> None:
    first = send(collector, {"e": "pv", "aid": APP})
    given = COOKIE.fullmatch(first.headers["set-cookie"])
    assert given is not None
    assert given[2] is None
    secure = {"Cookie": f"a=b; sp={given[1]}; c", "X-Forwarded-Proto": "https, http"}
    again = ask(collector, "/i", secure, e="pv", aid=APP, uid="u1")
    assert again.headers["set-cookie"] == f"sp={given[1]}; Max-Age=31536000; Path=/; HttpOnly; SameSite=None; Secure"
    assert [(event.anonymous_id, event.user_id, own(event)["network_userid"]) for event in await stored.collected()] == [
        (given[1], "", given[1]),
        (given[1], "u1", given[1]),
    ]


async def test_a_user_of_a_server_gets_no_new_id_with_every_request(collector: ServiceProcess, stored: Stored) -> None:
    for _ in range(2):
        send(collector, {"e": "pv", "aid": APP, "uid": "u1"})
    first, second = await stored.collected()
    assert [(event.anonymous_id, event.user_id) for event in (first, second)] == [("", "u1")] * 2
    assert own(first)["network_userid"] != own(second)["network_userid"]


@pytest.mark.parametrize("value", ["", "a b", "a\tSet-Cookie: x", "é", "x" * 101])
async def test_a_cookie_that_cannot_be_given_back_is_replaced(collector: ServiceProcess, stored: Stored, value: str) -> None:
    answer = send(collector, {"e": "pv", "aid": APP}, headers={"Cookie": f"sp={value}"})
    assert COOKIE.fullmatch(answer.headers["set-cookie"])
    (event,) = await stored.collected()
    assert uuid.UUID(event.anonymous_id)


async def test_anonymous_trackers_leave_no_trace_of_the_person(collector: ServiceProcess, stored: Stored) -> None:
    secret = {name: f"secret-{name}" for name in ("uid", "duid", "nuid", "tnuid", "sid", "vid", "fp", "ip")}
    headers = {"SP-Anonymous": "*", "Cookie": "sp=secret-cookie"}
    good = {"e": "pv", "eid": "e1", "aid": APP, "url": "https://ex.com/", "p": "web"}
    for answer in (
        send(collector, good | secret, {"e": "xx", "eid": "e2", "p": "web"} | secret, headers=headers),
        ask(collector, "/i", headers, **(good | {"eid": "e3"} | secret)),
        ask(collector, "/i", headers, e="xx", eid="e4", aid=APP, **secret),
        ask(collector, "/r/tp2", headers, u="https://shop.example/", eid="e5", aid=APP, **secret),
    ):
        assert answer.status in (200, 302)
        assert "set-cookie" not in answer.headers
    events, rejected = await stored.collected(), await stored.rejected()
    assert sorted((event.message_id, event.anonymous_id, event.user_id, event.client_ip) for event in events) == [
        (f"e{n}", f"e{n}", "", "") for n in (1, 3, 5)
    ]
    assert {event.message_id: own(event) for event in events}["e1"] == {"aid": APP, "p": "web"}
    assert sorted(event.message_id for event in rejected) == ["e2", "e4"]
    assert not [event for event in (*events, *rejected) if b"secret" in event.SerializeToString()]


async def test_a_bad_event_costs_only_itself(collector: ServiceProcess, stored: Stored) -> None:
    bad = {"e": "ue", "eid": "bad", "ue_px": "bm9wZQ", "aid": APP}
    answer = send(collector, {"e": "pv", "eid": "e1", "aid": APP}, bad, {"e": "pv", "eid": "e2", "aid": APP})
    assert (answer.status, answer.body) == (200, b"ok")
    assert ask(collector, "/i", e="se", eid="bad-too", aid=APP).status == 200
    assert sorted(event.message_id for event in await stored.collected()) == ["e1", "e2"]
    first, second = await stored.rejected()
    assert (first.message_id, first.type, first.reason, json.loads(first.payload)) == ("bad", "ue", "malformed_payload", bad)
    assert (second.message_id, second.reason) == ("bad-too", "missing_field")
    assert json.loads(second.payload) == {"e": "se", "eid": "bad-too", "aid": APP}


async def test_a_payload_belongs_to_one_source(collector: ServiceProcess, stored: Stored) -> None:
    apply_source(collector, workspace_id="acme", source_id="two-apps", write_keys=["app-1", "app-2"])
    apply_source(collector, workspace_id="acme", source_id="off", write_keys=["app-off"], disabled=True)
    items = [{"e": "pv", "eid": str(n), "aid": aid} for n, aid in enumerate(["nobody", "app-1", "", "app-2", APP, "app-off"])]
    assert send(collector, *items).status == 200
    assert sorted((event.message_id, event.source_id) for event in await stored.collected()) == [(n, "two-apps") for n in "123"]
    assert [(event.message_id, event.source_id, event.reason) for event in await stored.rejected()] == [
        ("0", "two-apps", "unknown_write_key"),
        ("4", "two-apps", "unknown_write_key"),
        ("5", "two-apps", "source_disabled"),
    ]


REFUSED = {
    "no app id": ({"data": [{"e": "pv"}]}, 401, "unknown_write_key"),
    "unknown app id": ({"data": [{"e": "pv", "aid": "nobody"}]}, 401, "unknown_write_key"),
    "no event": ({"data": []}, 401, "unknown_write_key"),
    "source switched off": ({"data": [{"e": "pv", "aid": "app-off-2"}]}, 403, "source_disabled"),
    "another schema": ({"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": []}, 400, "malformed_payload"),
    "data of another type": ({"data": {}}, 400, "malformed_payload"),
    "too many": ({"data": [{"aid": APP}] * 2501}, 413, "too_large"),
    "too long": ({"data": [{"aid": APP, "page": "x" * 512_000}]}, 413, "too_large"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_payloads_that_are_refused_whole(collector: ServiceProcess, stored: Stored, case: str) -> None:
    apply_source(collector, workspace_id="acme", source_id="off-2", write_keys=["app-off-2"], disabled=True)
    body, status, code = REFUSED[case]
    answer = request(collector, "POST", TRACKER, json.dumps({"schema": PAYLOAD} | body).encode(), {})
    assert (answer.status, answer.body["code"]) == (status, code)
    assert "set-cookie" not in answer.headers
    assert await stored.collected() == await stored.rejected() == []


async def test_a_redirect_leads_on_when_the_click_is_stored(collector: ServiceProcess, stored: Stored) -> None:
    answer = ask(collector, "/r/tp2", u="https://shop.example/a?b=é", aid=APP, eid="e1")
    assert (answer.status, answer.headers["location"]) == (302, "https://shop.example/a?b=%C3%A9")
    assert COOKIE.fullmatch(answer.headers["set-cookie"])
    (event,) = await stored.collected()
    assert (event.name, event.schema_uri) == ("uri_redirect", "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-0-0")
    assert json.loads(event.properties) == {"uri": "https://shop.example/a?b=é"}


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "https://shop.example@evil.example/", "//shop.example", "javascript:alert(1)", ""]
)
async def test_a_redirect_leads_nowhere_else(collector: ServiceProcess, stored: Stored, target: str) -> None:
    answer = ask(collector, "/r/tp2", u=target, aid=APP)
    assert (answer.status, answer.body["code"]) == (400, "invalid_field")
    assert "location" not in answer.headers
    assert await stored.collected() == []
