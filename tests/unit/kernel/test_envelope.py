"""Framed events are a serialized batch, cut within the limits and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1 import event_pb2
from cdi_kernel.envelope import frame, pack


@given(st.lists(st.integers(0, 40_000), max_size=30), st.integers(1, 10), st.integers(1, 100_000))
def test_packing_keeps_every_event_in_order_within_the_limits(sizes: list[int], max_events: int, max_bytes: int) -> None:
    events = [event_pb2.Event(message_id=str(index), properties=b"x" * size) for index, size in enumerate(sizes)]
    batches = list(pack([frame(event.SerializeToString()) for event in events], max_events=max_events, max_bytes=max_bytes))
    decoded = [event_pb2.EventBatch.FromString(batch.payload) for batch in batches]
    assert [event for batch in decoded for event in batch.events] == events
    assert [batch.events for batch in batches] == [len(batch.events) for batch in decoded]
    for batch in batches:
        assert 1 <= batch.events <= max_events
        assert len(batch.payload) <= max_bytes or batch.events == 1


@pytest.mark.parametrize("size", [0, 100, 127, 128, 4_080, 4_095, 4_096, 20_000])
def test_a_frame_is_what_protobuf_writes(size: int) -> None:
    event = event_pb2.Event(context=b"x" * size)
    assert frame(event.SerializeToString()) == event_pb2.EventBatch(events=[event]).SerializeToString()
