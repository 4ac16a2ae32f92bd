"""PostHog's bodies and events, and what they become; any JSON at all comes to events and faults, never to another exception."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_collector.domain import json_text, posthog_body
from cdi_collector.domain.client_event import ClientEvent
from cdi_kernel.clock import parse_instant
from cdi_kernel.faults import Fault, InvalidArgument, TooLarge, Unauthenticated

SENT = "2026-11-21T21:03:14.861Z"
SENT_US = parse_instant(SENT)
RANDOM = "3e231be3-8e46-485f-8462-c31bdb1247cf"


def read(body: Any, **options: Any) -> posthog_body.Posted:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return posthog_body.read(posthog_body.unwrapped(text), **options)


def one(event: dict[str, Any], **options: Any) -> ClientEvent:
    (item,) = read({"api_key": "k", "batch": [event], "sent_at": SENT}, **options).items
    assert isinstance(item, ClientEvent), item
    return item


def loaded(raw: Any) -> Any:
    return json.loads(bytes(raw)) if bytes(raw) else None


def event(**members: Any) -> dict[str, Any]:
    return {"event": "ordered", "distinct_id": "u1", **members}


FORMS = {
    "JSON": lambda text: text,
    "base64": base64.b64encode,
    "base64 for URLs, without padding": lambda text: base64.urlsafe_b64encode(text).rstrip(b"="),
    "form": lambda text: b"ver=1&data=" + quote(text).encode(),
    "form with base64": lambda text: b"data=" + quote(base64.b64encode(text)).encode(),
    "form with base64 whose plus signs became blanks": lambda text: b"data=" + base64.b64encode(text).replace(b"+", b" "),
    "base64 of a form": lambda text: base64.b64encode(b"data=" + quote(text).encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_json_is_found_in_whatever_holds_it(form: str) -> None:
    text = json.dumps([event(properties={"a": "~~~???>>>é"})]).encode()
    assert posthog_body.unwrapped(FORMS[form](text)) == text


@pytest.mark.parametrize("body", [b"", b"hello", b"data=", b"data=%7", b"=", b"a=b&c=d", b"\x00\xff", b"1", b'"x"'])
def test_what_holds_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(InvalidArgument) as raised:
        posthog_body.unwrapped(body)
    assert raised.value.reason_name == "malformed_payload"


def test_one_event_an_array_and_a_batch_are_the_same() -> None:
    single = read(event(api_key="k"))
    array = read([event(properties={"token": "k"})])
    batch = read({"token": "k", "batch": [event()], "sent_at": SENT})
    assert [posted.write_key for posted in (single, array, batch)] == ["k", "k", "k"]
    assert [len(posted.items) for posted in (single, array, batch)] == [1, 1, 1]
    assert (single.raws, single.sent_us, batch.sent_us) == (None, None, SENT_US)
    assert [bytes(raw) for raw in batch.raws or ()] == [json.dumps(event()).encode()]


@pytest.mark.parametrize("place", [{"api_key": "k"}, {"token": "k"}, {"$token": "k"}, {"properties": {"token": "k"}}])
def test_the_key_is_found_in_an_event(place: dict[str, Any]) -> None:
    assert read([event(), event(**place)]).write_key == "k"


def test_the_key_of_the_batch_wins_and_events_have_to_agree() -> None:
    assert read({"api_key": "k", "batch": [event(token="other")]}).write_key == "k"
    with pytest.raises(Unauthenticated):
        read([event(token="k"), event(token="other")])


def test_the_key_is_no_property_but_another_token_is() -> None:
    assert loaded(one(event(properties={"token": "k", "a": 1})).properties) == {"a": 1}
    assert loaded(one(event(properties={"token": "mine", "a": 1})).properties) == {"token": "mine", "a": 1}


def test_properties_are_kept_byte_for_byte() -> None:
    body = b'{"api_key":"k","batch":[{"event":"e","distinct_id":"u","properties":{ "b" : 1.50, "a":[ ] }}]}'
    (item,) = read(body).items
    assert isinstance(item, ClientEvent)
    assert bytes(item.properties) == b'{ "b" : 1.50, "a":[ ] }'


PERSONS: dict[str, tuple[dict[str, Any], tuple[Any, Any]]] = {
    "a server says nothing": (event(), ("u1", None)),
    "a number": (event(distinct_id=7), (7, None)),
    "in the properties": ({"event": "e", "properties": {"distinct_id": "u1"}}, ("u1", None)),
    "with a dollar": ({"event": "e", "$distinct_id": "u1"}, ("u1", None)),
    "the event's own wins": (event(properties={"distinct_id": "other"}), ("u1", None)),
    "browser, not known": (event(distinct_id="d", properties={"$is_identified": False, "$device_id": "d"}), (None, "d")),
    "browser, known": (event(properties={"$is_identified": True, "$device_id": "d", "$user_id": "u1"}), ("u1", "d")),
    "browser, not known after a reset": (event(distinct_id="n", properties={"$is_identified": False, "$device_id": "d"}), (None, "n")),
    "an old browser SDK, not known": (event(distinct_id="d", properties={"$device_id": "d"}), (None, "d")),
    "an old browser SDK, known": (event(properties={"$device_id": "d", "$user_id": "u1"}), ("u1", "d")),
    "becomes known": (
        event(event="$identify", properties={"$anon_distinct_id": "a", "$device_id": "d", "$is_identified": True}),
        ("u1", "a"),
    ),
    "identified by a server": (event(event="$identify"), ("u1", None)),
    "without a person": (event(properties={"$process_person_profile": False}), (None, "u1")),
    "a group of nobody, Python": (event(event="$groupidentify", distinct_id=RANDOM), (None, RANDOM)),
    "a group of nobody, Node": (
        event(event="$groupidentify", distinct_id="$company_g", properties={"$group_type": "company", "$group_key": "g"}),
        (None, "$company_g"),
    ),
    "a group of somebody": (event(event="$groupidentify", properties={"$group_type": "company", "$group_key": "g"}), ("u1", None)),
    "without cookies": (event(distinct_id="$posthog_cookieless", uuid="m"), (None, "m")),
    "nobody": ({"event": "e"}, (None, None)),
    "odd ids beside it are no ids": (event(properties={"$device_id": [1], "$user_id": {}, "$anon_distinct_id": True}), ("u1", None)),
}


@pytest.mark.parametrize("case", PERSONS)
def test_whose_event_it_is(case: str) -> None:
    given_event, expected = PERSONS[case]
    item = one(given_event)
    assert (item.user_id, item.anonymous_id) == expected


def test_types() -> None:
    page = one(event(event="$pageview", properties={"title": "Shop", "$current_url": "https://shop.example/a?b", "$referrer": "$direct"}))
    assert (page.type, page.event, loaded(page.context)) == ("page", None, {"page": {"url": "https://shop.example/a?b", "title": "Shop"}})
    assert loaded(page.properties)["$referrer"] == "$direct"
    screen = one(event(event="$screen", properties={"$screen_name": "Cart"}))
    assert (screen.type, screen.name) == ("screen", "Cart")
    group = one(event(event="$groupidentify", properties={"$group_type": "company", "$group_key": "g1", "$group_set": {"name": "Acme"}}))
    assert (group.type, group.group_id, loaded(group.traits)) == ("group", "g1", {"name": "Acme"})
    track = one(event(event="$autocapture"))
    assert (track.type, track.event) == ("track", "$autocapture")
    unnamed = one({"$distinct_id": "u1", "$set": {"a": 1}}, unnamed="$identify")
    assert (unnamed.type, unnamed.user_id, loaded(unnamed.traits)) == ("identify", "u1", {"a": 1})


def test_aliases() -> None:
    alias = one(event(event="$create_alias", distinct_id="anon-1", properties={"distinct_id": "anon-1", "alias": "u1"}))
    assert (alias.type, alias.previous_id, alias.user_id, alias.anonymous_id) == ("alias", "anon-1", "u1", None)
    merge = one(event(event="$merge_dangerously", properties={"alias": "u0", "$device_id": "d"}))
    assert (merge.type, merge.previous_id, merge.user_id, merge.anonymous_id) == ("alias", "u0", "u1", None)
    assert loaded(merge.context)["posthog"] == {"event": "$merge_dangerously"}


def test_what_is_said_about_a_person() -> None:
    identify = one(event(event="$identify", properties={"$set": {"a": 1, "b": 1}}, **{"$set": {"b": 2}, "$set_once": {"c": 3}}))
    assert (loaded(identify.traits), loaded(identify.context)) == ({"a": 1, "b": 2}, None)
    assert loaded(identify.properties) == {"$set": {"a": 1, "b": 1}, "$set_once": {"c": 3}}
    setting = one(event(event="$set", **{"$set": {"plan": "pro"}}))
    assert (setting.type, loaded(setting.traits), loaded(setting.context)) == ("identify", {"plan": "pro"}, {"posthog": {"event": "$set"}})
    track = one(event(properties={"$set": {"email": "a@b.co"}, "$set_once": {"d": 4}}, **{"$set_once": {"c": 3}}))
    assert loaded(track.context) == {"traits": {"email": "a@b.co"}}
    assert loaded(track.properties) == {"$set": {"email": "a@b.co"}, "$set_once": {"c": 3, "d": 4}}
    odd = one(event(properties={"$set": "x", "$set_once": [1]}, **{"$set": {}, "$set_once": None}))
    assert (loaded(odd.properties), loaded(odd.context)) == ({"$set": "x", "$set_once": [1]}, None)


def test_the_context_has_segments_names() -> None:
    context = loaded(
        one(
            event(
                library="node",
                properties={
                    "$ip": "203.0.113.9",
                    "$raw_user_agent": "Mozilla/5.0",
                    "$lib": "web",
                    "$lib_version": "1.2",
                    "$os": "Linux",
                    "$device_id": "d",
                    "$browser_language": "en-US",
                    "$screen_width": 800,
                    "utm_source": "news",
                    "utm_medium": None,
                    "$app_version": "3",
                    "$session_id": "s",
                    "$groups": {"company": "g1"},
                    "title": "of a book",
                    "mine": 1,
                },
            )
        ).context
    )
    assert context == {
        "ip": "203.0.113.9",
        "userAgent": "Mozilla/5.0",
        "library": {"name": "web", "version": "1.2"},
        "os": {"name": "Linux"},
        "device": {"id": "d"},
        "locale": "en-US",
        "screen": {"width": 800},
        "campaign": {"source": "news"},
        "app": {"version": "3"},
        "sessionId": "s",
        "groups": {"company": "g1"},
        "posthog": {"library": "node"},
    }


def test_times() -> None:
    assert one(event(timestamp="2026-11-21T21:03:14Z")).timestamp == "2026-11-21T21:03:14Z"
    assert parse_instant(one(event(offset=1_500)).timestamp) == SENT_US - 1_500_000
    assert parse_instant(one(event(offset=1_500, sent_at="2026-01-01T00:00:00Z")).timestamp) == parse_instant("2025-12-31T23:59:58.5Z")
    for odd in (True, "1", -5, 10**17, 1.5, None, []):
        assert one(event(offset=odd)).timestamp is None
    fixed = one(event(timestamp="2020-01-01T00:00:00Z", properties={"$ignore_sent_at": True}))
    assert fixed.timestamp == fixed.original_timestamp == "2020-01-01T00:00:00Z"
    assert read([event()], sent_us=5).sent_us == 5
    assert read({"batch": [], "sent_at": SENT}, sent_us=5).sent_us == SENT_US


BAD_EVENTS: dict[str, tuple[Any, str]] = {
    "no object": (5, "malformed_payload"),
    "event is no text": (event(event=5), "invalid_field"),
    "distinct id is an object": (event(distinct_id={}), "invalid_field"),
    "distinct id is a boolean": (event(distinct_id=True), "invalid_field"),
    "properties are no object": (event(properties=[1]), "invalid_field"),
    "$set is no object": (event(**{"$set": 5}), "invalid_field"),
    "uuid is an array": (event(uuid=[]), "invalid_field"),
    "timestamp is an object": (event(timestamp={}), "invalid_field"),
    "too deep": (event(properties={"a": json.loads("[" * 70 + "]" * 70)}), "nesting_too_deep"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_a_bad_event_costs_only_itself(case: str) -> None:
    bad, reason = BAD_EVENTS[case]
    first, fault, last = read({"api_key": "k", "batch": [event(), bad, event()]}).items
    assert isinstance(first, ClientEvent)
    assert isinstance(last, ClientEvent)
    assert isinstance(fault, Fault)
    assert fault.reason_name == reason


def test_an_event_with_a_number_too_large_costs_only_itself() -> None:
    good, bad = read(b'[{"event":"e","distinct_id":"u"},{"event":"e","distinct_id":"u","properties":{"a":1e999}}]').items
    assert isinstance(good, ClientEvent)
    assert isinstance(bad, Fault)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed_payload"),
        (b"[1", "malformed_payload"),
        (b"[] []", "malformed_payload"),
        (b'{"batch":5}', "invalid_field"),
        (b'{"batch":[],"api_key":5}', "invalid_field"),
        (b'["\xff"]', "invalid_encoding"),
        (b"[" * 2_000 + b"]" * 2_000, "nesting_too_deep"),
    ],
)
def test_a_bad_body_is_a_fault(body: bytes, reason: str) -> None:
    with pytest.raises(Fault) as raised:
        read(body)
    assert raised.value.reason_name == reason


def test_too_many_events() -> None:
    with pytest.raises(TooLarge):
        read([{}] * 2_501)


NAMES = st.sampled_from(
    ["event", "distinct_id", "$distinct_id", "uuid", "timestamp", "sent_at", "offset", "token", "api_key", "properties", "batch", "alias"]
) | st.sampled_from(
    ["$set", "$set_once", "$group_key", "$group_set", "$group_type", "$device_id", "$user_id", "$anon_distinct_id", "$is_identified", "$os"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["$identify", "$create_alias", "$groupidentify", "$pageview", "$screen", "$set", SENT, "$posthog_cookieless"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=8),
    max_leaves=30,
)
EVENTS = st.dictionaries(NAMES, VALUES, max_size=12)


@given(
    VALUES | st.lists(EVENTS, max_size=3) | st.fixed_dictionaries({"batch": st.lists(EVENTS | VALUES, max_size=3), "api_key": st.just("k")})
)
def test_any_json_comes_to_events_and_faults(value: Any) -> None:
    try:
        posted = read(value)
    except Fault:
        return
    for item in posted.items:
        if isinstance(item, Fault):
            continue
        for field in ("properties", "traits", "context"):
            text = bytes(getattr(item, field))
            assert not text or json_text.check(text) is None
        for identifier in (item.user_id, item.anonymous_id, item.group_id, item.previous_id, item.message_id):
            assert identifier is None or isinstance(identifier, str | int | float)
            assert not isinstance(identifier, bool)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode) | st.binary(max_size=100).map(base64.b64encode))
def test_any_bytes_come_to_json_or_a_fault(body: bytes) -> None:
    try:
        read(body)
    except Fault:
        return


@given(EVENTS)
def test_no_property_is_lost(properties: dict[str, Any]) -> None:
    item = read({"api_key": "k", "batch": [{"event": "e", "distinct_id": "u", "properties": properties}]}).items[0]
    if isinstance(item, ClientEvent):
        kept = {name: value for name, value in properties.items() if (name, value) != ("token", "k")}
        assert loaded(item.properties) == kept
