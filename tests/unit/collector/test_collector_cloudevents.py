"""CloudEvents in their three modes, and what they become; anything at all comes to an event or a fault."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_collector.domain import cloudevents, json_text
from cdi_collector.domain.client_event import ClientEvent
from cdi_kernel.faults import Fault, InvalidArgument

WHOLE = {
    "specversion": "1.0",
    "type": "com.example.order.created",
    "source": "/orders",
    "id": "A234-1234",
    "time": "2026-04-05T17:31:00Z",
    "subject": "u1",
    "datacontenttype": "application/json",
    "dataschema": "https://example.com/order.json",
    "comexampleextension": 5,
    "data": {"total": 19.95},
}
HEADERS = {
    b"ce-specversion": b"1.0",
    b"ce-type": b"com.example.order.created",
    b"ce-source": b"/orders",
    b"ce-id": b"A234-1234",
    b"ce-time": b"2026-04-05T17:31:00Z",
    b"ce-subject": b"u1",
    b"ce-dataschema": b"https://example.com/order.json",
    b"ce-comexampleextension": b"5",
    b"content-type": b"application/json",
    b"user-agent": b"x",
}


def structured(**changes: Any) -> ClientEvent:
    members = {name: value for name, value in (WHOLE | changes).items() if value is not ...}
    return cloudevents.read_structured(json.dumps(members).encode())


def loaded(raw: Any) -> Any:
    return json.loads(bytes(raw)) if bytes(raw) else None


def test_structured_mode() -> None:
    event = structured()
    assert (event.type, event.event, event.message_id) == ("track", "com.example.order.created", "/orders A234-1234")
    assert (event.user_id, event.anonymous_id, event.original_timestamp) == ("u1", None, "2026-04-05T17:31:00Z")
    assert loaded(event.properties) == {"total": 19.95}
    assert loaded(event.context) == {"cloudevents": {k: v for k, v in WHOLE.items() if k not in ("type", "time", "data")}}


def test_binary_mode_is_the_same() -> None:
    event, same = cloudevents.read_binary(HEADERS, b'{"total": 19.95}'), structured(comexampleextension="5")
    assert loaded(event.properties) == loaded(same.properties)
    assert loaded(event.context) == loaded(same.context)
    for field in ("type", "event", "message_id", "user_id", "anonymous_id", "original_timestamp"):
        assert getattr(event, field) == getattr(same, field)


def test_batched_mode_keeps_the_good_ones() -> None:
    body = json.dumps([WHOLE, {"specversion": "1.0"}, 5, WHOLE | {"id": "2"}]).encode()
    payloads, items = cloudevents.read_batch(body)
    assert [json.loads(bytes(payload)) for payload in payloads] == json.loads(body)
    assert [item.reason_name if isinstance(item, Fault) else item.message_id for item in items] == [
        "/orders A234-1234",
        "missing_field",
        "malformed_payload",
        "/orders 2",
    ]


@pytest.mark.parametrize(
    ("changes", "person"),
    [
        ({}, ("u1", None)),
        ({"userid": "u2"}, ("u2", None)),
        ({"userid": 7, "anonymousid": "a"}, (7, "a")),
        ({"anonymousid": "a"}, (None, "a")),
        ({"subject": ...}, (None, "/orders")),
        ({"subject": ""}, (None, "/orders")),
    ],
)
def test_whose_event_it_is(changes: dict[str, Any], person: tuple[Any, Any]) -> None:
    event = structured(**changes)
    assert (event.user_id, event.anonymous_id) == person


@pytest.mark.parametrize(
    ("changes", "properties"),
    [
        ({"data": [1, 2]}, {"data": [1, 2]}),
        ({"data": "text", "datacontenttype": "text/plain"}, {"data": "text"}),
        ({"data": None}, {"data": None}),
        ({"data": ...}, None),
        ({"data": ..., "data_base64": "AQI="}, {"data_base64": "AQI="}),
    ],
)
def test_data_that_is_no_object(changes: dict[str, Any], properties: Any) -> None:
    assert loaded(structured(**changes).properties) == properties


@pytest.mark.parametrize(
    ("content_type", "body", "properties"),
    [
        (b"application/json; charset=utf-8", b" [1] ", {"data": [1]}),
        (b"application/vnd.order+json", b'{"a":1}', {"a": 1}),
        (b"", b'{"a":1}', {"a": 1}),
        (b"", b"\x01\x02", {"data_base64": "AQI="}),
        (b"text/plain", b"5", {"data_base64": "NQ=="}),
        (b"application/json", b"", None),
    ],
)
def test_data_in_binary_mode(content_type: bytes, body: bytes, properties: Any) -> None:
    assert loaded(cloudevents.read_binary(HEADERS | {b"content-type": content_type}, body).properties) == properties


def test_headers_are_unquoted_and_percent_decoded() -> None:
    event = cloudevents.read_binary(HEADERS | {b"ce-type": b"Euro%20%E2%82%AC", b"ce-note": b'"a \\"b\\" \\\\"'}, b"")
    assert event.event == "Euro €"
    assert loaded(event.context)["cloudevents"]["note"] == 'a "b" \\'


def test_id_and_source_name_an_event_together() -> None:
    pairs = [("a", "b c"), ("a b", "c"), ("a", "b"), ("ab", ""), ("x" * 90, "y" * 90), ("x" * 89, "xy" + "y" * 89), ("a", "é" * 99)]
    ids = [structured(source=source, id=name).message_id for source, name in pairs if name]
    assert len(set(ids)) == len(ids)
    assert all(len(str(found)) <= 100 for found in ids)
    assert ids == [structured(source=source, id=name).message_id for source, name in pairs if name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"specversion": "0.3"}, "invalid_field"),
        ({"specversion": ...}, "missing_field"),
        ({"id": ""}, "missing_field"),
        ({"source": None}, "missing_field"),
        ({"type": ...}, "missing_field"),
        ({"type": 5}, "invalid_field"),
        ({"time": 5}, "invalid_field"),
        ({"subject": {}}, "invalid_field"),
        ({"userid": True}, "invalid_field"),
        ({"data_base64": "AQI="}, "invalid_field"),
        ({"data": ..., "data_base64": 5}, "invalid_field"),
        ({"data": json.loads("[" * 70 + "]" * 70)}, "nesting_too_deep"),
    ],
)
def test_what_is_no_event(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Fault) as raised:
        structured(**changes)
    assert raised.value.reason_name == reason


def test_json_that_is_none() -> None:
    with pytest.raises(InvalidArgument):
        cloudevents.read_binary(HEADERS, b"{")
    for body in (b"", b"{}", b"[", b'["\xff"]'):
        with pytest.raises(InvalidArgument):
            cloudevents.read_batch(body)


NAMES = st.sampled_from([*WHOLE, "data_base64", "userid", "anonymousid"]) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5) | st.just("1.0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.sets(st.sampled_from([*WHOLE]), max_size=3))
def test_any_object_comes_to_an_event_or_a_fault(changes: dict[str, Any], without: set[str]) -> None:
    members = {name: value for name, value in (WHOLE | changes).items() if name not in without}
    (item,) = cloudevents.read_batch(json.dumps([members]).encode())[1]
    if isinstance(item, ClientEvent):
        assert json_text.check(bytes(item.context)) is None
        assert not bytes(item.properties) or json_text.check(bytes(item.properties)) is None


@given(
    st.dictionaries(st.sampled_from([*HEADERS]) | st.binary(max_size=4).map(b"ce-".__add__), st.binary(max_size=20)), st.binary(max_size=50)
)
def test_any_headers_come_to_an_event_or_a_fault(changes: dict[bytes, bytes], body: bytes) -> None:
    try:
        event = cloudevents.read_binary(HEADERS | changes, body)
    except Fault:
        return
    assert json_text.check(bytes(event.context)) is None
    assert not bytes(event.properties) or json_text.check(bytes(event.properties)) is None
