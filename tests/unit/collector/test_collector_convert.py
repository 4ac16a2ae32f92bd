from collections.abc import Callable

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.error.v1 import error_pb2
from cdi.event.v1.event_pb2 import EVENT_TYPE_TRACK
from cdi_collector.convert import ingest
from cdi_collector.domain.client_event import ClientEvent, Instant, Item
from cdi_collector.domain.intake import Intake, Refusal
from cdi_collector.domain.limits import MAX_NESTING
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault, InvalidArgument
from cdi_kernel.wire import varint
from cdi_runtime.rpc import status_of

ORIGINAL_TIME = pb.EventInput.DESCRIPTOR.fields_by_name["original_time"].number


def request_of(*events: pb.EventInput) -> bytes:
    return pb.IngestEventsRequest(events=events).SerializeToString()


def item_of(**fields: object) -> Item:
    (item,) = ingest.items_of(ingest.batch_of(request_of(pb.EventInput(**fields))), as_sent=False)  # type: ignore[arg-type]  # any field
    return item


@pytest.mark.parametrize(
    ("seconds", "nanos", "micros"),
    [
        (1_795_262_400, 0, 1_795_262_400_000_000),
        (1_795_262_400, 1_000_000, 1_795_262_400_001_000),
        (1_795_262_400, 1_999, 1_795_262_400_000_001),
        (-1, 999_999_999, -1),
        (MIN_INSTANT_US // 1_000_000, 0, MIN_INSTANT_US),
        (MAX_INSTANT_US // 1_000_000, 999_999_999, MAX_INSTANT_US),
        # No time by protobuf's rules, and a client may send it all the same.
        (1_795_262_400, -1_000_000, 1_795_262_399_999_000),
        (1_795_262_400, 2_000_000_000, 1_795_262_402_000_000),
    ],
)
def test_the_original_time_keeps_its_microseconds(seconds: int, nanos: int, micros: int) -> None:
    item = item_of(original_time=Timestamp(seconds=seconds, nanos=nanos))
    assert isinstance(item, ClientEvent)
    assert item.original_timestamp == Instant(micros)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"\x08", b"\x10"]), st.integers(0, 2**31) | st.sampled_from([1_795_262_400, 1_000_000, 999_000_000])),
        max_size=3,
    )
)
def test_times_are_read_as_protobuf_reads_them_however_they_are_written(fields: list[tuple[bytes, int]]) -> None:
    raw = b"".join(tag + varint(number) for tag, number in fields)
    event = varint(ORIGINAL_TIME << 3 | 2) + varint(len(raw)) + raw
    time = Timestamp.FromString(raw)
    for _ in range(2):
        (item,) = ingest.items_of(ingest.batch_of(b"\x12" + varint(len(event)) + event), as_sent=False)
        assert isinstance(item, ClientEvent)
        assert item.original_timestamp == time.seconds * 1_000_000 + time.nanos // 1_000


def test_a_time_outside_the_range_of_timestamps_refuses_its_event() -> None:
    item = item_of(original_time=Timestamp(seconds=MAX_INSTANT_US // 1_000_000 + 1))
    assert isinstance(item, Fault)
    assert item.metadata == {"field": "original_time"}


@pytest.mark.parametrize("field", ["original_time", "properties", "traits", "context", "integrations"])
def test_a_sub_message_that_is_none_refuses_its_event_alone(field: str) -> None:
    number = pb.EventInput.DESCRIPTOR.fields_by_name[field].number
    broken = pb.EventInput(message_id="m").SerializeToString() + varint(number << 3 | 2) + b"\x02\xff\xff"
    wire = b"".join(b"\x12" + varint(len(event)) + event for event in (broken, pb.EventInput(message_id="n").SerializeToString()))
    refused, taken = ingest.items_of(ingest.batch_of(wire), as_sent=False)
    assert isinstance(refused, Fault)
    assert (refused.reason, refused.metadata) == (error_pb2.ERROR_REASON_INVALID_FIELD, {"field": field})
    assert isinstance(taken, ClientEvent)


@pytest.mark.parametrize("read", [ingest.batch_of, ingest.stream_batch_of])
def test_bytes_that_are_no_request_are_malformed(read: Callable[[bytes], object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(b"\x12\xff")
    assert refused.value.reason == error_pb2.ERROR_REASON_MALFORMED_PAYLOAD


def test_fields_in_another_order_and_long_objects_are_read_alike() -> None:
    text = b'{"a":"' + b"x" * 9_000 + b'"}'
    parts = [pb.EventInput(context_json=text), pb.EventInput(message_id="m"), pb.EventInput(type=EVENT_TYPE_TRACK, name="n")]
    event = b"".join(part.SerializeToString() for part in parts)
    (item,) = ingest.items_of(ingest.batch_of(b"\x12" + varint(len(event)) + event), as_sent=False)
    assert isinstance(item, ClientEvent)
    assert (item.type, item.event, item.message_id, bytes(item.context)) == ("track", "n", "m", text)


@pytest.mark.parametrize("levels", [MAX_NESTING, MAX_NESTING + 1])
def test_objects_may_be_nested_so_deep_and_no_deeper(levels: int) -> None:
    item = item_of(properties_json=b'{"a":' * levels + b"1" + b"}" * levels)
    assert isinstance(item, Fault) is (levels > MAX_NESTING)


@given(
    st.lists(st.text(max_size=100) | st.sampled_from(["m" * 100, "\U0001f600" * 100]), max_size=300),
    st.sets(st.integers(0, 299)),
)
def test_results_are_what_the_generated_code_writes(message_ids: list[str], refused: set[int]) -> None:
    fault = InvalidArgument("x" * 5_000, metadata={"field": "event"})
    intake = Intake(message_ids=message_ids, refusals=[Refusal(index, fault) for index in sorted(refused) if index < len(message_ids)])
    statuses = [status_of(refusal.fault) for refusal in intake.refusals]
    wanted = [
        pb.IngestResult(index=index, message_id=text, status=status_of(fault) if index in refused else status_pb2.Status())
        for index, text in enumerate(message_ids)
    ]
    written = ingest.results_of(ingest.RESULTS_TAG, intake, statuses)
    assert pb.IngestEventsResponse.FromString(written) == pb.IngestEventsResponse(results=wanted)
    assert len(written) == pb.IngestEventsResponse(results=wanted).ByteSize()
    streamed = ingest.results_of(ingest.STREAM_RESULTS_TAG, intake, statuses)
    assert list(pb.StreamEventsResponse.FromString(streamed).results) == wanted


@pytest.mark.parametrize("text", [b"[]", b"{},{}", b"{", b'{"a":}', b"{}{}", b'{"a":1e999}', b"\xff{}", b"1", b" "])
def test_json_that_is_no_object_refuses_its_event(text: bytes) -> None:
    item = item_of(properties_json=text)
    assert isinstance(item, Fault)
    assert (item.reason, item.metadata) == (error_pb2.ERROR_REASON_INVALID_FIELD, {"field": "properties"})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", b""),
        (b' {"a": 1} ', b'{"a": 1}'),
        (b'{"a":1}', b'{"a":1}'),
        (b'{"a":"\\ud800"}', b'{"a":"\\ufffd"}'),
    ],
)
def test_objects_stay_the_bytes_that_were_sent(sent: bytes, kept: bytes) -> None:
    item = item_of(context_json=sent)
    assert isinstance(item, ClientEvent)
    assert bytes(item.context) == kept


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_struct_with_a_number_that_json_lacks_refuses_its_event(number: float) -> None:
    struct = Struct()
    struct.update({"a": [1, {"b": 2}]})
    struct["a"][1]["b"] = number
    item = item_of(traits=struct)
    assert isinstance(item, Fault)
    assert (item.reason, item.metadata) == (error_pb2.ERROR_REASON_INVALID_FIELD, {"field": "traits"})
