"""Events taken as a client of gRPC serialized them: the same as events that were looked at field by field, and nothing else."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_collector.convert import ingest
from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.intake import Arrival, Intake, admit
from cdi_collector.domain.limits import MAX_EVENT_BYTES, MAX_ID_LENGTH, MAX_NAME_LENGTH, MAX_NESTING
from cdi_collector.domain.sources import Source
from cdi_kernel.ids import MAX_MESSAGE_ID_LENGTH, SourceId, WorkspaceId
from cdi_kernel.wire import varint

NOTHING: Mapping[int, str] = {}
RECEIVED_US = 1_795_262_400_000_000
SOURCE = Source(WorkspaceId("acme"), SourceId("app"), False, 1, frozenset())


def request_of(*events: bytes) -> bytes:
    return b"".join(b"\x12" + varint(len(event)) + event for event in events)


def taken(wire: bytes, *, as_sent: bool, sent_us: int | None = None, traceparents: Mapping[int, str] = NOTHING) -> Intake:
    arrival = Arrival(SOURCE, RECEIVED_US, sent_us, "203.0.113.9", "agent/1", 8, lambda: "made")
    return admit(ingest.items_of(ingest.batch_of(wire), as_sent=as_sent), arrival, traceparents)


def are_taken_as_sent(wire: bytes) -> bool:
    return isinstance(ingest.items_of(ingest.batch_of(wire), as_sent=True), EncodedEvents)


def told(intake: Intake) -> object:
    """All that an intake says, its events as messages."""
    events = {partition: event_pb2.EventBatch.FromString(b"".join(frames)) for partition, frames in intake.frames.items()}
    refusals = [(refusal.index, refusal.fault.reason, refusal.fault.metadata, str(refusal.fault)) for refusal in intake.refusals]
    return events, refusals, intake.message_ids, intake.links


def struct(**members: object) -> Struct:
    made = Struct()
    made.update(members)
    return made


PLAIN = pb.EventInput(
    message_id="m1",
    type=event_pb2.EVENT_TYPE_TRACK,
    name="Order Completed",
    user_id="u1",
    anonymous_id="a1",
    original_time=Timestamp(seconds=1_795_262_399, nanos=5_000_000),
    properties_json=b'{"total":3}',
    context_json=b'{"ip":"203.0.113.1"}',
)
TEXTS = st.sampled_from(["", "x", "\0", "é", "a\0b"])
IDS = TEXTS | st.sampled_from(["i" * MAX_ID_LENGTH, "i" * (MAX_ID_LENGTH + 1), "é" * MAX_ID_LENGTH])
NAMES = TEXTS | st.sampled_from(["n" * MAX_NAME_LENGTH, "n" * (MAX_NAME_LENGTH + 1)])
DEEP = [b'{"a":' * levels + b"1" + b"}" * levels for levels in (MAX_NESTING - 1, MAX_NESTING, MAX_NESTING + 1)]
WRONG = (b"null", b"[]", b"{", b"1", b"", b'{"a":1e999}', b"{},{}", b'{"a":"\xff"}', b'{"a":"' + b"x" * MAX_EVENT_BYTES + b'"}')
OBJECTS = [b"{}", b'{"a":1}', b' {"a":1}', b'{"a":"\\ud800"}', b'{"traits":{"a":1}}', *DEEP, *WRONG]
FORMS = st.one_of(st.none(), st.none(), st.just(b'{"b":2}'), st.sampled_from(OBJECTS), st.builds(struct), st.builds(lambda: struct(a=1)))
TIMES = st.one_of(
    st.none(),
    st.builds(Timestamp),
    st.builds(
        Timestamp, seconds=st.integers(1_795_262_000, 1_795_262_500), nanos=st.integers(0, 999).map(lambda millis: millis * 1_000_000)
    ),
    st.builds(Timestamp, seconds=st.integers(-(2**40), 2**40), nanos=st.integers(-(2**31), 2**31 - 1)),
)


@st.composite
def inputs(draw: st.DrawFn) -> pb.EventInput:
    made = pb.EventInput(
        type=draw(st.integers(0, 8)),  # type: ignore[arg-type]  # numbers that are no type as well
        message_id=draw(st.sampled_from(["m1", "", "\0", "m" * MAX_MESSAGE_ID_LENGTH, "m" * (MAX_MESSAGE_ID_LENGTH + 1)])),
        user_id=draw(IDS),
        anonymous_id=draw(IDS),
        group_id=draw(TEXTS),
        previous_id=draw(TEXTS),
        name=draw(NAMES),
        category=draw(NAMES),
        schema_uri=draw(TEXTS),
        original_time=draw(TIMES),
    )
    for field in ("properties", "traits", "context", "integrations"):
        form = draw(FORMS)
        if isinstance(form, bytes):
            setattr(made, f"{field}_json", form)
        elif form is not None:
            getattr(made, field).CopyFrom(form)
    return made


@given(st.lists(inputs(), min_size=1, max_size=3), st.none() | st.integers(RECEIVED_US - 10**9, RECEIVED_US + 10**9))
def test_an_event_is_the_same_whichever_way_it_takes(events: list[pb.EventInput], sent_us: int | None) -> None:
    wire = request_of(*(event.SerializeToString() for event in events))
    assert told(taken(wire, as_sent=True, sent_us=sent_us)) == told(taken(wire, as_sent=False, sent_us=sent_us))


TEXT_FIELDS = ["message_id", "name", "category", "user_id", "anonymous_id", "group_id", "previous_id", "schema_uri"]
OBJECT_FIELDS = ["properties_json", "traits_json", "context_json", "integrations_json"]
LENGTHS = ["", "x", "\0", *("x" * length for length in (100, 101, 512, 513, 1_024, 1_025))]
CHANGES = [*product(TEXT_FIELDS, LENGTHS), *product(OBJECT_FIELDS, [None, *OBJECTS])]


@pytest.mark.parametrize("kind", range(9))
def test_the_rules_hold_for_an_event_that_differs_in_one_field(kind: int) -> None:
    for field, value in CHANGES:
        wire = request_of(changed(kind, field, value).SerializeToString(), PLAIN.SerializeToString())
        assert told(taken(wire, as_sent=True)) == told(taken(wire, as_sent=False)), (field, value)


def changed(kind: int, field: str, value: str | bytes | None) -> pb.EventInput:
    event = pb.EventInput()
    event.CopyFrom(PLAIN)
    event.type = kind  # type: ignore[assignment]  # numbers that are no type as well
    if kind == event_pb2.EVENT_TYPE_GROUP:
        event.ClearField("name")
        event.group_id = "g1"
    if kind == event_pb2.EVENT_TYPE_IDENTIFY:
        event.ClearField("name")
        event.traits_json, event.context_json = b'{"plan":"pro"}', b'{"traits":{"plan":"free"}}'
    if value is None:
        event.ClearField(field)  # type: ignore[arg-type]  # any of them
    else:
        setattr(event, field, value)
    return event


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": event_pb2.EVENT_TYPE_PAGE, "category": "c", "integrations_json": b'{"All":true}'},
        {"type": event_pb2.EVENT_TYPE_SCREEN, "name": ""},
        {"type": event_pb2.EVENT_TYPE_GROUP, "name": "", "group_id": "g1", "traits_json": b'{"plan":"pro"}'},
        {"type": event_pb2.EVENT_TYPE_IDENTIFY, "name": "", "traits_json": b'{"plan":"pro"}'},
    ],
)
def test_what_nearly_all_events_are_is_taken_as_sent(fields: Mapping[str, Any]) -> None:
    event = pb.EventInput()
    event.CopyFrom(PLAIN)
    for name, value in fields.items():
        setattr(event, name, value)
    wire = request_of(event.SerializeToString())
    events = ingest.items_of(ingest.batch_of(wire), as_sent=True)
    assert isinstance(events, EncodedEvents)
    assert (events.message_ids, events.persons, events.original_us) == (("m1",), ["a1"], [1_795_262_399_005_000])
    (looked_at,) = ingest.items_of(ingest.batch_of(wire), as_sent=False)  # type: ignore[misc]  # then they are items
    assert isinstance(looked_at, ClientEvent)


def test_one_odd_event_has_all_of_a_request_looked_at() -> None:
    odd = pb.EventInput(message_id="m2", type=event_pb2.EVENT_TYPE_ALIAS, user_id="u1", previous_id="a1")
    plain = PLAIN.SerializeToString()
    assert are_taken_as_sent(request_of(plain, plain))
    assert not are_taken_as_sent(request_of(plain, odd.SerializeToString()))
    assert not are_taken_as_sent(b"")


def test_sampled_events_are_marked_whichever_way_they_take() -> None:
    wire, marked = request_of(*[PLAIN.SerializeToString()] * 3), {0: "00-first-01", 2: "00-third-01"}
    assert are_taken_as_sent(wire)
    found = taken(wire, as_sent=True, traceparents=marked)
    assert told(found) == told(taken(wire, as_sent=False, traceparents=marked))
    ((partition, frames),) = found.frames.items()
    assert found.links == {partition: list(marked.values())}
    events = event_pb2.EventBatch.FromString(b"".join(frames)).events
    assert [event.traceparent for event in events] == ["00-first-01", "", "00-third-01"]


def test_an_event_over_the_limit_is_refused_alone() -> None:
    large = pb.EventInput()
    large.CopyFrom(PLAIN)
    large.context_json = b'{"a":"' + b"x" * MAX_EVENT_BYTES + b'"}'
    wire = request_of(PLAIN.SerializeToString(), large.SerializeToString(), PLAIN.SerializeToString())
    assert are_taken_as_sent(wire)
    intake = taken(wire, as_sent=True)
    assert ([refusal.index for refusal in intake.refusals], intake.accepted) == ([1], 2)
    assert told(intake) == told(taken(wire, as_sent=False))


def test_fields_in_another_order_are_looked_at() -> None:
    assert not are_taken_as_sent(request_of(PLAIN.SerializeToString() + pb.EventInput(message_id="m2").SerializeToString()))


def test_what_a_client_says_has_the_numbers_that_it_has_in_an_event() -> None:
    names = {field.name: field for field in event_pb2.Event.DESCRIPTOR.fields}
    numbers = {field.number for field in event_pb2.Event.DESCRIPTOR.fields}
    for field in pb.EventInput.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.name == "Struct":
            assert field.number not in numbers
        else:
            same = names[field.name.removesuffix("_json")]
            assert (field.number, field.type, field.message_type) == (same.number, same.type, same.message_type)


def test_no_client_says_what_only_the_suite_says() -> None:
    forged = event_pb2.Event(
        workspace_id="other",
        source_id="other",
        partition=7,
        client_ip="198.51.100.1",
        consent=event_pb2.ConsentResult(granted_purposes=["marketing"], linkable=True),
        identity=event_pb2.IdentityResult(profile_id="p"),
    ).SerializeToString()
    forged += b"\xc2\x3e\x03abc"
    plain, wire = PLAIN.SerializeToString(), request_of(PLAIN.SerializeToString() + forged)
    assert not are_taken_as_sent(wire)
    assert told(taken(wire, as_sent=True)) == told(taken(request_of(plain), as_sent=True))
    (event,) = event_pb2.EventBatch.FromString(b"".join(taken(wire, as_sent=True).frames.popitem()[1])).events
    assert (event.workspace_id, event.source_id, event.client_ip) == ("acme", "app", "203.0.113.9")
    assert not event.HasField("consent")
    assert not event.HasField("identity")
