"""The rules of an event, its times, its partition, and what any bytes come to."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.event_fields import TYPES
from cdi_collector.domain.intake import Arrival, Intake, admit
from cdi_collector.domain.rejections import rejected_events
from cdi_collector.domain.sources import Source, SourceSnapshot, hash_of
from cdi_collector.http.base import Query, Request, Route
from cdi_collector.http.registry import ROUTES
from cdi_kernel.faults import Fault, InvalidArgument, PermissionDenied, Unauthenticated
from cdi_kernel.ids import SourceId, WorkspaceId
from cdi_kernel.topology import partition_of

RECEIVED_US = 1_767_323_046_000_000
SOURCE = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset())
NAMED = Source(WorkspaceId("x"), SourceId("x"), False, 1, frozenset({hash_of("x")}))
"""What the placeholders of a path stand for."""


READERS = {path: handler.read for path, handler in ROUTES if isinstance(handler, Route)}


def request_of(path: str, body: bytes) -> Request:
    params = dict.fromkeys(re.findall(r"\{(\w+)\}", path), "x")
    return Request("POST", path, params, Query(b""), {}, body, SourceSnapshot((NAMED,)), "203.0.113.9")


def take(path: str, body: bytes, traceparents: dict[int, str] | None = None) -> tuple[Intake, list[bytes]]:
    parcel = READERS[path](request_of(path, body))
    arrival = Arrival(SOURCE, RECEIVED_US, parcel.sent_us, "203.0.113.9", "agent/1", 8, lambda: "made-1")
    intake = admit(parcel.items, arrival, traceparents or {})
    return intake, list(parcel.payloads()) if parcel.payloads is not None else []


def take_batch(*events: Any, **members: Any) -> Intake:
    return take("/v1/batch", json.dumps({"batch": events, **members}).encode())[0]


def events_of(intake: Intake) -> list[Event]:
    return [event for frames in intake.frames.values() for event in EventBatch.FromString(b"".join(frames)).events]


def one(event: Any, **members: Any) -> Event:
    intake = take_batch(event, **members)
    assert [str(refusal.fault) for refusal in intake.refusals] == []
    (found,) = events_of(intake)
    return found


TRACK = {"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "m1"}


def test_a_track_event_whole() -> None:
    event = one(
        TRACK
        | {
            "anonymousId": "a1",
            "properties": {"total": 19.95},
            "context": {"ip": "1.2.3.4"},
            "integrations": {"All": False},
            "timestamp": "2026-01-02T03:04:05.678Z",
        },
        sentAt="2026-01-02T03:04:06Z",
    )
    assert (event.workspace_id, event.source_id, event.message_id) == ("acme", "web", "m1")
    assert (event.type, event.name) == (event_pb2.EVENT_TYPE_TRACK, "Order Completed")
    assert (event.user_id, event.anonymous_id) == ("u1", "a1")
    assert (event.properties, event.context) == (b'{"total": 19.95}', b'{"ip": "1.2.3.4"}')
    assert (event.integrations, event.traits) == (b'{"All": false}', b"")
    assert (event.client_ip, event.user_agent) == ("203.0.113.9", "agent/1")
    assert event.partition == partition_of("acme", "a1", 8)
    assert event.received_time.ToMicroseconds() == RECEIVED_US
    assert event.event_time.ToMicroseconds() == RECEIVED_US - 322_000
    assert event.original_time.ToJsonString() == "2026-01-02T03:04:05.678Z"
    assert event.sent_time.ToJsonString() == "2026-01-02T03:04:06Z"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, RECEIVED_US),
        ({"timestamp": "2026-01-02T03:04:05Z"}, RECEIVED_US - 1_000_000),
        ({"originalTimestamp": "2026-01-02T03:04:05Z"}, RECEIVED_US - 1_000_000),
        ({"originalTimestamp": "2026-01-02T03:04:05Z", "timestamp": "2020-02-02T00:00:00Z"}, 1_580_601_600_000_000),
        ({"timestamp": "2026-01-02T03:04:05Z", "sentAt": "2026-01-02T03:04:05Z"}, RECEIVED_US),
        ({"timestamp": 1_767_323_045}, RECEIVED_US - 1_000_000),
    ],
)
def test_event_time(fields: dict[str, Any], expected: int) -> None:
    event = one(TRACK | fields, sentAt="2026-01-02T03:04:06Z")
    assert event.event_time.ToMicroseconds() == expected


@given(st.integers(-100 * 365 * 86_400_000, 100 * 365 * 86_400_000), st.integers(0, 30 * 86_400_000), st.booleans())
def test_a_clock_off_by_years_is_corrected(off_ms: int, waited_ms: int, of_the_batch: bool) -> None:
    sent_ms = RECEIVED_US // 1_000 + off_ms
    times = {"originalTimestamp": iso(sent_ms - waited_ms)}
    event = one(TRACK | times, sentAt=iso(sent_ms)) if of_the_batch else one(TRACK | times | {"sentAt": iso(sent_ms)})
    assert event.event_time.ToMicroseconds() == RECEIVED_US - waited_ms * 1_000
    assert event.sent_time.ToMicroseconds() == sent_ms * 1_000


def iso(milliseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("wrong", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", -62_135_596_800, 1e17])
def test_a_clock_off_by_millennia_is_no_reason_to_fail(wrong: Any) -> None:
    for members in ({"timestamp": wrong}, {"originalTimestamp": wrong}, {"sentAt": wrong, "timestamp": "2026-01-02T03:04:05Z"}):
        intake = take_batch(TRACK | members, sentAt="2026-01-02T03:04:06Z")
        assert [refusal.fault.reason_name for refusal in intake.refusals] in ([], ["invalid_field"])
        assert all(event.event_time.ToJsonString() for event in events_of(intake))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "identify", "userId": "u"}, ""),
        ({"type": "page", "userId": "u", "name": "Home"}, ""),
        ({"type": "page", "anonymousId": "a"}, ""),
        ({"type": "alias", "userId": "u", "previousId": "p"}, ""),
        ({"type": "group", "anonymousId": "a", "groupId": 7}, ""),
        ({"type": "track", "event": "X", "userId": None, "anonymousId": "a", "properties": None}, ""),
        ({"type": "track", "event": "X"}, "missing_identity"),
        ({"type": "track", "event": "X", "userId": ""}, "missing_identity"),
        ({"type": "track", "userId": "u"}, "missing_field"),
        ({"type": "group", "userId": "u"}, "missing_field"),
        ({"type": "alias", "userId": "u"}, "missing_field"),
        ({"type": "alias", "anonymousId": "a", "previousId": "p"}, "missing_field"),
        ({"userId": "u"}, "missing_field"),
        ({"type": "zap", "userId": "u"}, "unknown_event_type"),
        (TRACK | {"messageId": "m" * 101}, "message_id_too_long"),
        (TRACK | {"userId": "a\0b"}, "invalid_field"),
        (TRACK | {"userId": "u" * 513}, "invalid_field"),
        (TRACK | {"userId": True}, "invalid_field"),
        (TRACK | {"userId": {}}, "invalid_field"),
        (TRACK | {"event": 5}, "invalid_field"),
        (TRACK | {"properties": []}, "invalid_field"),
        (TRACK | {"context": "x"}, "invalid_field"),
        (TRACK | {"timestamp": "yesterday"}, "invalid_field"),
        (TRACK | {"timestamp": "0001-01-01T00:00:00+23:59"}, "invalid_field"),
        (TRACK | {"properties": {"a": "x" * 33_000}}, "too_large"),
        (5, "malformed_payload"),
        (None, "malformed_payload"),
        ([], "malformed_payload"),
    ],
)
def test_rules(event: Any, expected: str) -> None:
    intake = take_batch(event, TRACK)
    assert intake.accepted == (1 if expected else 2)
    assert [refusal.fault.reason_name for refusal in intake.refusals] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "properties",
    [b'{"a":1e999}', b'{"a":%s}' % (b"9" * 4_000), b'{"a":' * 65 + b"1" + b"}" * 65],
)
def test_a_value_out_of_range_costs_one_event_only(properties: bytes) -> None:
    bad = b'{"type":"track","event":"X","userId":"u","properties":%s}' % properties
    intake, payloads = take("/v1/batch", b'{"batch":[%s,%s]}' % (json.dumps(TRACK).encode(), bad))
    assert intake.accepted == 1
    assert intake.refusals[0].index == 1
    assert payloads[1] == bad


def test_a_batch_nested_beyond_reading_is_refused_whole() -> None:
    with pytest.raises(InvalidArgument) as caught:
        take("/v1/batch", b'{"batch":[%s]}' % (b"[" * 2_000 + b"]" * 2_000))
    assert caught.value.reason_name == "nesting_too_deep"


@pytest.mark.parametrize(("levels", "accepted"), [(64, 2), (65, 1)])
def test_an_object_may_be_nested_to_the_limit(levels: int, accepted: int) -> None:
    deep = b'{"type":"track","event":"X","userId":"u","properties":%s}' % (b'{"a":' * levels + b"1" + b"}" * levels)
    body = b'{"batch":[%s,%s]}' % (json.dumps(TRACK).encode(), deep)
    intake, _ = take("/v1/batch", body)
    assert intake.accepted == accepted
    assert [refusal.fault.reason_name for refusal in intake.refusals] == ["nesting_too_deep"] * (2 - accepted)


@pytest.mark.parametrize("body", [b'{"batch":[]}],[{"batch":[]}', b'{"batch":[]}]', b'{"batch":[]},{"batch":[]}'])
def test_several_values_are_no_body(body: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        take("/v1/batch", body)
    assert caught.value.reason_name == "malformed_payload"


def test_a_batch_context_nested_too_deep_refuses_its_events() -> None:
    intake = take_batch(TRACK, context=json.loads('{"a":' * 65 + "1" + "}" * 65))
    assert [refusal.fault.reason_name for refusal in intake.refusals] == ["nesting_too_deep"]


def test_ids_may_be_numbers() -> None:
    event = one(TRACK | {"userId": 12, "anonymousId": 3.0, "messageId": 0})
    assert (event.user_id, event.anonymous_id, event.message_id) == ("12", "3", "0")


def test_an_id_is_made_where_there_is_none() -> None:
    assert one({k: v for k, v in TRACK.items() if k != "messageId"}).message_id == "made-1"


def test_the_batch_gives_context_and_integrations_to_its_items() -> None:
    event = one(TRACK | {"context": {"a": 1}}, context={"a": 2, "b": 3}, integrations={"All": True})
    assert json.loads(event.context) == {"a": 1, "b": 3}
    assert json.loads(event.integrations) == {"All": True}


def test_order_within_a_partition_is_the_order_of_the_batch() -> None:
    intake = take_batch(*(TRACK | {"messageId": f"m{n}", "anonymousId": f"a{n % 5}"} for n in range(200)))
    assert len(events_of(intake)) == 200
    for partition, frames in intake.frames.items():
        events = EventBatch.FromString(b"".join(frames)).events
        numbers = [int(event.message_id[1:]) for event in events]
        assert numbers == sorted(numbers)
        assert {event.partition for event in events} == {partition}


def test_a_sampled_event_carries_its_traceparent() -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    intake, _ = take("/v1/batch", json.dumps({"batch": [TRACK, TRACK]}).encode(), {1: traceparent})
    assert [event.traceparent for event in events_of(intake)] == ["", traceparent]
    assert list(intake.links.values()) == [[traceparent]]


def test_a_refused_event_is_kept_with_its_bytes() -> None:
    intake, payloads = take("/v1/batch", json.dumps({"batch": [{"type": "zap", "messageId": "m9", "event": "E"}, 5]}).encode())
    first, second = rejected_events(intake, payloads, SOURCE, RECEIVED_US, "1", lambda: "r")
    assert (first.message_id, first.type, first.name, first.reason) == ("m9", "zap", "E", "unknown_event_type")
    assert json.loads(first.payload) == {"type": "zap", "messageId": "m9", "event": "E"}
    assert (second.payload, second.reason, second.message_id) == (b"5", "malformed_payload", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [field.encode_name for field in msgspec.structs.fields(ClientEvent)]
EVENTS = st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["u1", "x"]), max_size=8).flatmap(
    lambda event: st.sampled_from(sorted(TYPES)).map(lambda kind: event | {"type": kind})
)


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_taken_or_refused_by_a_fault(path: str, body: bytes) -> None:
    fault, intake = None, Intake()
    try:
        intake, _ = take(path, body)
    except Fault as raised:
        fault = raised
    assert fault is None or fault.http_status in (400, 404, 413)
    assert len(events_of(intake)) == intake.accepted


@given(st.lists(EVENTS | JSON, max_size=6))
def test_any_batch_is_accounted_for(events: list[Any]) -> None:
    intake = take_batch(*events)
    assert len(intake.message_ids) == len(events)
    assert len(events_of(intake)) + len(intake.refusals) == len(events)
    for event in events_of(intake):
        assert event.message_id
        assert event.user_id or event.anonymous_id
        assert all(json.loads(text or b"{}") is not None for text in (event.properties, event.traits, event.context))


def test_write_keys() -> None:
    active = Source(WorkspaceId("w"), SourceId("s"), False, 1, frozenset({hash_of("k1"), hash_of("k2")}))
    disabled = Source(WorkspaceId("w"), SourceId("t"), True, 1, frozenset({hash_of("k3")}))
    snapshot = SourceSnapshot((active, disabled))
    assert snapshot.authenticate("k1") is active
    assert snapshot.authenticate("k2") is active
    for stranger in ("", "k", "K1"):
        with pytest.raises(Unauthenticated):
            snapshot.authenticate(stranger)
    with pytest.raises(PermissionDenied):
        snapshot.authenticate("k3")
