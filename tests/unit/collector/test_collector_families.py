"""What Segment's, RudderStack's and Jitsu's requests are read as."""

import base64
import contextlib
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import EVENT_TYPE_IDENTIFY, Event, EventBatch
from cdi_collector.domain.client_ip import without_host_part
from cdi_collector.domain.intake import Arrival, admit
from cdi_collector.domain.sources import Source, SourceSnapshot, hash_of
from cdi_collector.http.base import Page, Parcel, Query, Request, Route
from cdi_collector.http.registry import ROUTES
from cdi_collector.http.responses import Response
from cdi_kernel.faults import Fault, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from cdi_kernel.ids import SourceId, WorkspaceId

RECEIVED_US = 1_767_323_046_000_000
SOURCE = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset({hash_of("key")}))
OFF = Source(WorkspaceId("acme"), SourceId("off"), True, 1, frozenset({hash_of("off-key")}))
SENT = "2026-01-02T03:04:07Z"
OLD = "2019-05-05T05:05:05Z"


def ask(path: str, body: Any = None, *, query: str = "", **headers: str) -> Request:
    found = ROUTES.find(path)
    assert found is not None
    return Request(
        "GET" if body is None else "POST",
        path,
        found[1],
        Query(query.encode()),
        {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()},
        b"" if body is None else json.dumps(body).encode(),
        SourceSnapshot([SOURCE, OFF]),
        "203.0.113.9",
    )


def read(path: str, body: Any = None, *, query: str = "", **headers: str) -> Parcel:
    found = ROUTES.find(path)
    assert found is not None
    assert isinstance(found[0], Route)
    return found[0].read(ask(path, body, query=query, **headers))


def shown(path: str, query: str = "", **headers: str) -> Response:
    found = ROUTES.find(path)
    assert found is not None
    assert isinstance(found[0], Page)
    return found[0].respond(ask(path, query=query, **headers))


def events(path: str, body: Any = None, *, query: str = "", **headers: str) -> list[Event]:
    parcel = read(path, body, query=query, **headers)
    arrival = Arrival(SOURCE, RECEIVED_US, parcel.sent_us, "203.0.113.9", "", 1, lambda: "made")
    intake = admit(parcel.items, arrival, {})
    assert [str(refusal.fault) for refusal in intake.refusals] == []
    return [event for frames in intake.frames.values() for event in EventBatch.FromString(b"".join(frames)).events]


def refusals(path: str, body: Any) -> list[str]:
    try:
        parcel = read(path, body)
    except Fault as fault:
        return [fault.reason_name]
    intake = admit(parcel.items, Arrival(SOURCE, RECEIVED_US, None, "", "", 1, lambda: "made"), {})
    return [refusal.fault.reason_name for refusal in intake.refusals]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"timestamp": OLD}, 1_557_032_705_000_000),
        ({"originalTimestamp": OLD}, 1_557_032_705_000_000),
        ({"timestamp": OLD, "originalTimestamp": "2018-01-01T00:00:00Z"}, 1_557_032_705_000_000),
        ({}, RECEIVED_US),
    ],
)
def test_an_import_keeps_its_times(times: dict[str, str], expected: int) -> None:
    track = {"type": "track", "event": "X", "userId": "u"} | times
    for body in ({"batch": [track], "sentAt": "2020-01-01T00:00:00Z"}, {"batch": [track | {"sentAt": "2020-01-01T00:00:00Z"}]}):
        (event,) = events("/v1/import", body)
        assert event.event_time.ToMicroseconds() == expected


EMAIL_OPENED = {"writeKey": "key", "userId": "u1", "event": "Email Opened", "properties": {"subject": "The Daily", "n": 1}}


@pytest.mark.parametrize("path", ["/v1/pixel/track", "/pixel/v1/track"])
@pytest.mark.parametrize(
    "encode", [base64.b64encode, base64.urlsafe_b64encode, lambda text: base64.urlsafe_b64encode(text).rstrip(b"="), bytes]
)
def test_a_pixel_carries_json(path: str, encode: Any) -> None:
    query = urlencode({"data": encode(json.dumps(EMAIL_OPENED).encode())})
    assert read(path, query=query).write_key == "key"
    (event,) = events(path, query=query)
    assert (event.name, event.user_id, json.loads(event.properties)) == ("Email Opened", "u1", {"subject": "The Daily", "n": 1})


def test_a_pixel_carries_arguments() -> None:
    query = urlencode(
        {
            "writeKey": "key",
            "anonymousId": '"amp-1"',
            "event": "Viewed",
            "properties.total": "5",
            "context.page.url": "https://shop.example/?a=b&c",
            "properties.a.b.c.d.e.f.g.h.i": "deep",
        }
    )
    assert read("/pixel/v1/track", query=query).write_key == "key"
    (event,) = events("/pixel/v1/track", query=query)
    assert (event.name, event.anonymous_id) == ("Viewed", "amp-1")
    assert json.loads(event.context) == {"page": {"url": "https://shop.example/?a=b&c"}}
    assert json.loads(event.properties) == {"total": "5", "a": {"b": {"c": {"d": {"e": {"f": {"g": {"h.i": "deep"}}}}}}}}


@given(st.dictionaries(st.text(alphabet="abc.", max_size=30), st.text(max_size=5), max_size=6) | st.just({"data": "x" * 9}))
def test_any_pixel_is_read_or_refused(arguments: dict[str, str]) -> None:
    with contextlib.suppress(InvalidArgument):
        parcel = read("/v1/pixel/page", query=urlencode(arguments))
        assert len(admit(parcel.items, Arrival(SOURCE, RECEIVED_US, None, "", "", 1, lambda: "made"), {}).message_ids) == 1


def test_settings_send_analytics_js_here_and_nowhere_else() -> None:
    answer = json.loads(shown("/v1/projects/key/settings", host="cdi.example:8443", x_forwarded_proto="https").body)
    assert list(answer["integrations"]) == ["Segment.io"]
    own = answer["integrations"]["Segment.io"]
    assert (own["apiKey"], own["apiHost"], own["protocol"]) == ("key", "cdi.example:8443/v1", "https")
    assert answer["metrics"] == {"sampleRate": 0}
    assert answer["remotePlugins"] == []


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        ({"host": "h"}, "http"),
        ({"host": "h", "origin": "https://a"}, "https"),
        ({"host": "h", "x_forwarded_proto": "zap"}, "http"),
        ({}, None),
    ],
)
def test_settings_name_the_protocol_of_the_page(headers: dict[str, str], protocol: str | None) -> None:
    own = json.loads(shown("/v1/projects/key/settings", **headers).body)["integrations"]["Segment.io"]
    assert own.get("protocol") == protocol


def test_settings_of_nobody() -> None:
    with pytest.raises(NotFound):
        shown("/v1/projects/nope/settings")
    with pytest.raises(PermissionDenied):
        shown("/v1/projects/off-key/settings")


@pytest.mark.parametrize("path", ["/sourceConfig", "/sourceConfig/"])
def test_a_source_config_is_what_analytics_js_takes(path: str) -> None:
    for query, headers in (
        ("writeKey=key", {}),
        ("", {"authorization": "Basic a2V5Og=="}),
        ("writeKey=x", {"authorization": "Basic a2V5Og=="}),
    ):
        source = json.loads(shown(path, query, **headers).body)["source"]
        assert (source["id"], source["enabled"], source["destinations"]) == ("web", True, [])
        assert isinstance(source["config"], dict)
    assert json.loads(shown(path, "writeKey=off-key").body)["source"]["enabled"] is False
    for query in ("writeKey=nope", ""):
        with pytest.raises(Unauthenticated):
            shown(path, query)


MERGE = {"type": "merge", "userId": "u1", "mergeProperties": [{"type": "email", "value": " A@b.co"}, {"type": "anonymousId", "value": 7}]}
MERGED = [
    {"id": "a@b.co", "type": "email", "collection": "users", "encoding": "none"},
    {"id": "7", "type": "anonymous_id", "collection": "users", "encoding": "none"},
]


def test_a_merge_becomes_an_identify_with_external_ids() -> None:
    known = {"id": "x", "type": "crm"}
    whole = MERGE | {"context": {"ip": "1.2.3.4", "externalIds": [known]}}
    for path, body in (("/v1/merge", whole), ("/v1/batch", {"batch": [MERGE | {"context": None}, whole]})):
        event = events(path, body)[-1]
        assert (event.type, event.user_id) == (EVENT_TYPE_IDENTIFY, "u1")
        assert json.loads(event.context) == {"ip": "1.2.3.4", "externalIds": [known, *MERGED]}
    first = events("/v1/batch", {"batch": [MERGE | {"context": None}, whole]})[0]
    assert json.loads(first.context) == {"externalIds": MERGED}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"userId": ""}, "missing_identity"),
        ({"mergeProperties": []}, "missing_field"),
        ({"mergeProperties": None}, "missing_field"),
        ({"mergeProperties": {}}, "invalid_field"),
        ({"mergeProperties": [{"type": "email"}]}, "invalid_field"),
        ({"mergeProperties": [{"type": "email", "value": None}]}, "invalid_field"),
        ({"mergeProperties": [{"type": "", "value": "a"}]}, "invalid_field"),
        ({"mergeProperties": [{"type": "email", "value": "a"}] * 51}, "invalid_field"),
        ({"context": []}, "invalid_field"),
        ({"context": {"externalIds": 5}}, "invalid_field"),
    ],
)
def test_a_wrong_merge_costs_itself(change: dict[str, Any], reason: str) -> None:
    assert refusals("/v1/merge", MERGE | change) == [reason]
    assert refusals("/v1/batch", {"batch": [MERGE, MERGE | change, MERGE]}) == [reason]


def test_a_merge_without_identifiers_is_no_type_in_a_batch_without_any() -> None:
    assert refusals("/v1/merge", {"userId": "u"}) == ["missing_field"]
    assert refusals("/v1/batch", {"batch": [{"type": "merge", "userId": "u"}]}) == ["unknown_event_type"]


@pytest.mark.parametrize(
    ("event", "traits"),
    [
        ({"type": "identify", "context": {"traits": {"a": 1}}}, {"a": 1}),
        ({"type": "identify", "context": {"traits": {"a": 1}}, "traits": {"b": 2}}, {"b": 2}),
        ({"type": "identify", "context": {"traits": {}}}, None),
        ({"type": "identify", "context": {"traits": None}}, None),
        ({"type": "identify", "context": {"traits": [1]}}, None),
        ({"type": "identify", "context": {"page": {"title": "traits"}}}, None),
        ({"type": "identify"}, None),
        ({"type": "track", "event": "X", "context": {"traits": {"a": 1}}}, None),
        ({"type": "group", "groupId": "g", "context": {"traits": {"a": 1}}}, None),
    ],
)
def test_an_identify_without_traits_has_those_of_its_context(event: dict[str, Any], traits: Any) -> None:
    (found,) = events("/v1/batch", {"batch": [event | {"userId": "u"}]})
    assert (json.loads(found.traits) if found.traits else None) == traits


ANONYMOUS = base64.b64encode(b"anon-1").decode()


def test_headers_stand_in_for_what_the_body_lacks() -> None:
    headers = {"anonymousid": ANONYMOUS, "sentat": SENT}
    track = {"type": "track", "event": "X", "timestamp": "2026-01-02T03:04:05Z"}
    (single,) = events("/v1/track", track | {"userId": ""}, **headers)
    known, stranger, own = events("/v1/batch", {"batch": [track | {"userId": "u"}, track, track | {"anonymousId": "a"}]}, **headers)
    assert [event.anonymous_id for event in (single, known, stranger, own)] == ["anon-1", "", "anon-1", "a"]
    assert {event.event_time.ToMicroseconds() for event in (single, known, stranger, own)} == {RECEIVED_US - 2_000_000}
    (corrected,) = events("/v1/track", track | {"userId": "u", "sentAt": "2026-01-02T03:04:05Z"}, **headers)
    assert corrected.event_time.ToMicroseconds() == RECEIVED_US


@pytest.mark.parametrize("header", ["???", "", "/////w==", "a"])
def test_a_header_that_cannot_be_read_is_none(header: str) -> None:
    (event,) = events("/v1/track", {"event": "X", "userId": "u"}, anonymousid=header, sentat="yesterday")
    assert event.anonymous_id == ""
    assert event.event_time.ToMicroseconds() == RECEIVED_US


def test_the_key_of_a_beacon_is_in_its_address() -> None:
    batch = {"batch": [{"type": "page", "userId": "u"}]}
    assert read("/beacon/v1/batch", batch, query="writeKey=key").write_key == "key"
    assert read("/beacon/v1/batch", batch | {"writeKey": "in-body"}).write_key == "in-body"


@pytest.mark.parametrize("path", ["/api/s/page", "/api/s/s2s/page"])
def test_jitsu_has_its_own_key_and_its_own_answer(path: str) -> None:
    page = {"writeKey": "id:***", "userId": "u", "properties": {"name": "Home"}}
    parcel = read(path, page, x_write_key="id:secret")
    assert (parcel.write_key, parcel.answer.body) == ("id:secret", b'{"ok":true}')
    assert read(path, page).write_key is None
    assert [event.name for event in events(path, page)] == ["Home"]
    assert [event.name for event in events(path, page | {"name": "Own"})] == ["Own"]
    assert [event.name for event in events(path, page | {"properties": {"name": 5}})] == [""]


@pytest.mark.parametrize(("policy", "address"), [("keep", None), ("remove", ""), ("stripLastOctet", "203.0.113.0"), ("zap", None)])
def test_jitsu_may_ask_for_less_of_the_address(policy: str, address: str | None) -> None:
    assert read("/api/s/s2s/batch", {"batch": []}, x_ip_policy=policy).client_ip == address


def test_the_network_of_an_address() -> None:
    assert without_host_part("2001:db8:1:2:3:4:5:6") == "2001:db8:1::"
    assert without_host_part("unix") == ""
