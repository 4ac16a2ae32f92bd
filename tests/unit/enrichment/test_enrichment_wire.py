"""Fields written as bytes are what protobuf writes."""

from hypothesis import example, given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event
from cdi_enrichment.domain import wire


@given(st.text(max_size=300), st.binary(max_size=300))
@example("x" * 127, b"x" * 128)
@example("x" * 1_023, b"x" * 1_024)
@example("x" * 16_383, b"x" * 16_384)
@example("", b"")
def test_fields_are_read_as_they_were_written(text: str, content: bytes) -> None:
    written = wire.field(Event, "traceparent")(text.encode()) + wire.field(Event, "context")(content)
    assert Event.FromString(written) == Event(traceparent=text, context=content)


def test_the_last_one_counts() -> None:
    write = wire.field(Event, "traceparent")
    assert Event.FromString(Event(traceparent="first").SerializeToString() + write(b"second")).traceparent == "second"
