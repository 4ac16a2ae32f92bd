"""PostHog's SDKs: the real one for Python, and by hand the shapes of bodies and what posthog-js asks for beside."""

import asyncio
import base64
import gzip
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from posthog import Posthog

from cdi.event.v1 import event_pb2
from cdi_cli.embedded import ServiceProcess

from .conftest import WRITE_KEY, Stored, post, request
from .golden import readable

SERVER = {"$lib": "posthog-python", "$lib_version": "7.91.1", "$is_server": True, "$geoip_disable": True}
STORED = {"status": "Ok"}
CAPTURE = ["/batch/", "/batch", "/e/", "/e", "/i/v0/e/", "/i/v0/e", "/capture/", "/track/", "/i/v0/ai/batch/"]


@pytest.mark.parametrize("zipped", [False, True])
async def test_every_call_of_the_python_sdk(collector: ServiceProcess, stored: Stored, zipped: bool) -> None:
    failures: list[object] = []
    client = Posthog(WRITE_KEY, host=f"http://{collector.addresses['http']}", gzip=zipped, on_error=lambda *error: failures.append(error))
    ids = {
        "capture": client.capture(
            "ordered", distinct_id="u1", properties={"total": 19.95, "$set": {"email": "a@b.co"}}, groups={"company": "g"}
        ),
        "nobody": client.capture("seen", properties={"$current_url": "https://shop.example/"}),
        "page": client.capture("$pageview", distinct_id="u1", properties={"$current_url": "https://shop.example/"}),
        "set": client.set(distinct_id="u1", properties={"plan": "pro"}),
        "set once": client.set_once(distinct_id="u1", properties={"first": "mail"}),
        "group": client.group_identify("company", "g", {"name": "Acme"}, distinct_id="u1"),
        "group of nobody": client.group_identify("company", "g", {"name": "Acme"}),
        "alias": client.alias("anon-1", "u1"),
    }
    await asyncio.to_thread(client.shutdown)
    assert failures == []

    events = {event.message_id: readable(event) for event in await stored.collected()}
    found = {name: events.pop(str(message_id)) for name, message_id in ids.items()}
    assert (events, await stored.rejected()) == ({}, [])

    for event in found.values():
        assert (event["source_id"], event["user_agent"]) == ("web", "posthog-python/7.91.1")
        assert event["properties"].items() >= SERVER.items()
        assert event["context"]["library"] == {"name": "posthog-python", "version": "7.91.1"}
        assert event["original_time"] <= event["sent_time"]
    assert {name: event["type"].removeprefix("EVENT_TYPE_").lower() for name, event in found.items()} == {
        "capture": "track",
        "nobody": "track",
        "page": "page",
        "set": "identify",
        "set once": "identify",
        "group": "group",
        "group of nobody": "group",
        "alias": "alias",
    }
    named = {name: event for name, event in found.items() if name not in ("nobody", "group of nobody")}
    assert {event["user_id"] for event in named.values()} == {"u1"}
    for name in ("nobody", "group of nobody"):
        assert "user_id" not in found[name]
        assert re.fullmatch(r"[0-9a-f-]{36}", found[name]["anonymous_id"])
    track = found["capture"]
    assert (track["name"], track["properties"]["total"], track["properties"]["$set"]) == ("ordered", 19.95, {"email": "a@b.co"})
    assert (track["context"]["traits"], track["context"]["groups"]) == ({"email": "a@b.co"}, {"company": "g"})
    assert found["page"]["context"]["page"] == {"url": "https://shop.example/"}
    assert (found["set"]["traits"], found["set"]["context"]["posthog"]) == ({"plan": "pro"}, {"event": "$set"})
    assert ("traits" not in found["set once"], found["set once"]["properties"]["$set_once"]) == (True, {"first": "mail"})
    assert (found["group"]["group_id"], found["group"]["traits"]) == ("g", {"name": "Acme"})
    assert found["group"]["properties"]["$group_type"] == "company"
    assert found["alias"]["previous_id"] == "anon-1"


async def test_the_python_sdk_may_fill_its_batches_with_the_largest_events(collector: ServiceProcess, stored: Stored) -> None:
    """It sends 100 events at a time, and would give a refused batch up for good."""
    failures: list[Any] = []
    client = Posthog(WRITE_KEY, host=f"http://{collector.addresses['http']}", on_error=lambda error, _: failures.append(error))
    for _ in range(100):
        client.capture("seen", distinct_id="u1", properties={"text": "x" * 30_000})
    await asyncio.to_thread(client.shutdown)
    assert (len(await stored.collected()), failures) == (100, [])


async def test_the_python_sdk_finds_no_flags(collector: ServiceProcess) -> None:
    client = Posthog(WRITE_KEY, host=f"http://{collector.addresses['http']}")
    flags = await asyncio.to_thread(client.get_all_flags, "u1")
    await asyncio.to_thread(client.shutdown)
    assert flags == {}


def browser_event(message_id: str, **members: Any) -> dict[str, Any]:
    return {"event": "clicked", "uuid": message_id, "properties": {"token": WRITE_KEY, "distinct_id": "d", "$device_id": "d"}, **members}


def in_base64(body: Any) -> bytes:
    return base64.b64encode(json.dumps(body).encode())


FORMS = {
    "gzip that no header mentions": ("/e/?ver=1.449.2", lambda body: gzip.compress(json.dumps(body).encode()), "text/plain"),
    "gzip that only the URL mentions": ("/e/?compression=gzip-js", lambda body: gzip.compress(json.dumps(body).encode()), "text/plain"),
    "form": ("/e/?compression=base64", lambda body: b"data=" + quote(in_base64(body)).encode(), "application/x-www-form-urlencoded"),
    "form without base64": ("/e/", lambda body: b"data=" + quote(json.dumps(body)).encode(), "application/x-www-form-urlencoded"),
    "base64": ("/e/?compression=base64", in_base64, "text/plain"),
    "plain": ("/e/", lambda body: json.dumps(body).encode(), "text/plain"),
}


@pytest.mark.parametrize("form", FORMS)
async def test_what_browsers_send(collector: ServiceProcess, stored: Stored, form: str) -> None:
    path, encoded, content_type = FORMS[form]
    bodies = [[browser_event("m1"), browser_event("m2")], browser_event("m3"), {"api_key": WRITE_KEY, "batch": [browser_event("m4")]}]
    for body in bodies:
        answer = post(collector, path, encoded(body), {"Content-Type": content_type, "Origin": "https://shop.example"})
        assert (answer.status, answer.body) == (200, STORED)
    events = await stored.collected()
    assert sorted((event.message_id, event.anonymous_id, event.name) for event in events) == [
        (f"m{n}", "d", "clicked") for n in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("path", CAPTURE)
async def test_every_path(collector: ServiceProcess, stored: Stored, path: str) -> None:
    assert post(collector, path, browser_event("m"), {}).body == STORED
    (event,) = await stored.collected()
    assert (event.message_id, event.type) == ("m", event_pb2.EVENT_TYPE_TRACK)


async def test_engage_needs_no_event_name(collector: ServiceProcess, stored: Stored) -> None:
    assert post(collector, "/engage/", {"$token": WRITE_KEY, "$distinct_id": "u1", "$set": {"a": 1}}, {}).body == STORED
    (event,) = await stored.collected()
    assert (event.type, event.user_id, json.loads(event.traits)) == (event_pb2.EVENT_TYPE_IDENTIFY, "u1", {"a": 1})


async def test_a_get_has_its_event_and_its_time_in_the_query(collector: ServiceProcess, stored: Stored) -> None:
    path = f"/e/?data={quote(in_base64(browser_event('m', offset=1_500)))}&_=1767323046000&ip=1"
    assert request(collector, "GET", path, None, {}).body == STORED
    (event,) = await stored.collected()
    assert (event.sent_time.ToJsonString(), event.original_time.ToJsonString()) == ("2026-01-02T03:04:06Z", "2026-01-02T03:04:04.500Z")
    assert abs(event.received_time.ToMicroseconds() - event.event_time.ToMicroseconds() - 1_500_000) < 10


async def test_one_bad_event_does_not_cost_the_others(collector: ServiceProcess, stored: Stored) -> None:
    bad = browser_event("m2", distinct_id={"a": 1})
    answer = post(collector, "/batch/", {"api_key": WRITE_KEY, "batch": [browser_event("m1"), bad, 5, browser_event("m3")]}, {})
    assert (answer.status, answer.body) == (200, STORED)
    assert sorted(event.message_id for event in await stored.collected()) == ["m1", "m3"]
    rejected = await stored.rejected()
    assert [event.reason for event in rejected] == ["invalid_field", "malformed_payload"]
    assert [json.loads(event.payload) for event in rejected] == [bad, 5]


BAD = {
    "unknown key": ("/batch/", {"api_key": "nope", "batch": [browser_event("m")]}, 401, "unknown_write_key"),
    "no key": ("/e/", {"event": "e", "distinct_id": "u"}, 401, "unknown_write_key"),
    "different keys": ("/e/", [browser_event("m"), {"event": "e", "token": "nope"}], 401, "unknown_write_key"),
    "no name": ("/capture/", {"api_key": WRITE_KEY, "distinct_id": "u"}, 400, "missing_field"),
    "nobody": ("/capture/", {"api_key": WRITE_KEY, "event": "e"}, 400, "missing_identity"),
    "empty": ("/e/", b"", 400, "malformed_payload"),
    "no JSON": ("/e/", b"hello", 400, "malformed_payload"),
    "damaged gzip": ("/e/", b"\x1f\x8bxxxx", 400, "invalid_compression"),
    "gzip in base64": ("/e/", base64.b64encode(gzip.compress(b"{}")), 400, "malformed_payload"),
    "many events": ("/e/", [{}] * 2_501, 413, "too_large"),
}


async def test_bad_input_has_clear_answers(collector: ServiceProcess, stored: Stored) -> None:
    for name, (path, body, status, code) in BAD.items():
        answer = post(collector, path, body, {})
        assert (name, answer.status, answer.body["code"]) == (name, status, code)
    assert (await stored.collected(), await stored.rejected()) == ([], [])


@pytest.mark.parametrize("path", ["/flags/?v=2", "/flags?v=4", "/decide/?v=3"])
async def test_there_are_no_flags(collector: ServiceProcess, path: str) -> None:
    answer = post(collector, path, gzip.compress(b'{"token":"x","distinct_id":"d"}'), {"Origin": "https://shop.example"})
    assert (answer.status, answer.body["featureFlags"], answer.body["errorsWhileComputingFlags"]) == (200, {}, False)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


async def test_the_configuration_of_the_browser_sdk(collector: ServiceProcess) -> None:
    answer = request(collector, "GET", f"/array/{WRITE_KEY}/config?ip=0", None, {"Origin": "https://shop.example"})
    assert (answer.status, answer.body["token"], answer.body["hasFeatureFlags"]) == (200, WRITE_KEY, False)
    assert "gzip-js" in answer.body["supportedCompression"]
    # Whatever is said of surveys, posthog-js loads their script.
    assert "surveys" not in answer.body
    script = request(collector, "GET", f"/array/{quote('a</script>')}/config.js", None, {})
    assert script.status == 404
    script = request(collector, "GET", f"/array/{quote('a<b')}/config.js", None, {})
    assert (script.status, script.headers["content-type"]) == (200, "application/javascript; charset=utf-8")
    assert b"<" not in script.body
    assert json.loads(script.body.partition(b"]=")[2].rstrip(b";\n"))["config"]["token"] == "a<b"
