"""The event written by hand is the event that the generated code reads."""

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_collector.domain import wire
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_varint_is_what_protobuf_reads(number: int) -> None:
    assert Event.FromString(wire.PARTITION + wire.varint(number & 0xFFFF_FFFF)).partition == number & 0xFFFF_FFFF


@given(st.integers(min_value=MIN_INSTANT_US, max_value=MAX_INSTANT_US))
def test_timestamp_of_every_instant(micros: int) -> None:
    expected = Timestamp()
    expected.FromMicroseconds(micros)
    assert Event.FromString(wire.EVENT_TIME + wire.timestamp(micros)).event_time == expected


@given(st.text(max_size=6_000).filter(lambda text: len(text.encode()) < 20_000), st.binary(max_size=200))
def test_fields_and_frame_round_trip(text: str, content: bytes) -> None:
    parts = [b"", *wire.MESSAGE_ID.of(text.encode()), *wire.PROPERTIES.of(content * 50)]
    (event,) = EventBatch.FromString(wire.framed(parts)).events
    assert (event.message_id, event.properties) == (text, content * 50)
