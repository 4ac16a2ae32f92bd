"""Fields written as bytes are what protobuf writes."""

from hypothesis import example, given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_enrichment.domain import wire


@given(st.text(max_size=300), st.binary(max_size=300))
@example("x" * 127, b"x" * 128)
@example("x" * 1_023, b"x" * 1_024)
@example("x" * 16_383, b"x" * 16_384)
@example("x" * 4_095, b"x" * 4_096)
@example("", b"")
def test_fields_are_read_as_they_were_written(text: str, content: bytes) -> None:
    written = wire.field(Event, "traceparent")(text.encode()) + wire.field(Event, "context")(content)
    assert Event.FromString(written) == Event(traceparent=text, context=content)


def test_the_last_one_counts() -> None:
    write = wire.field(Event, "traceparent")
    assert Event.FromString(Event(traceparent="first").SerializeToString() + write(b"second")).traceparent == "second"


@given(
    st.lists(st.builds(Event, name=st.text(max_size=20), context=st.sampled_from([b"", b"x" * 127, b"x" * 128, b"x" * 20_000])), max_size=5)
)
def test_the_bytes_of_each_message_are_cut_out(events: list[Event]) -> None:
    payload = EventBatch(events=events).SerializeToString()
    assert wire.each(payload, EventBatch.FromString(payload).events) == [event.SerializeToString() for event in events]


def test_beside_fields_of_a_later_version_each_message_is_serialized() -> None:
    later = (
        EventBatch(events=[Event(name="a")]).SerializeToString() + b"\x12\x01x" + EventBatch(events=[Event(name="b")]).SerializeToString()
    )
    assert [Event.FromString(one).name for one in wire.each(later, EventBatch.FromString(later).events)] == ["a", "b"]
