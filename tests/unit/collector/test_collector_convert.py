from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.error.v1 import error_pb2
from cdi_collector import convert
from cdi_collector.domain.client_event import ClientEvent, Item
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US, instant_of, parse_instant
from cdi_kernel.faults import Fault


def item_of(**fields: object) -> Item:
    (item,) = convert.items_of(pb.IngestEventsRequest(events=[pb.EventInput(**fields)]))  # type: ignore[arg-type]  # any field
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
    assert parse_instant(item.original_timestamp) == micros


def test_a_time_outside_the_range_of_timestamps_refuses_its_event() -> None:
    item = item_of(original_time=Timestamp(seconds=MAX_INSTANT_US // 1_000_000 + 1))
    assert isinstance(item, Fault)
    assert item.metadata == {"field": "original_time"}


def test_a_second_is_written_as_datetime_writes_it() -> None:
    moment = datetime(2026, 11, 21, 10, 0, 0, 1_000, tzinfo=UTC)
    micros = instant_of(moment)
    item = item_of(original_time=Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000))
    assert isinstance(item, ClientEvent)
    assert item.original_timestamp == "2026-11-21T10:00:00.001Z"


@pytest.mark.parametrize("text", [b"[]", b"{},{}", b"{", b'{"a":}', b"{}{}", b'{"a":1e999}', b"\xff{}", b"1", b" "])
def test_json_that_is_no_object_refuses_its_event(text: bytes) -> None:
    item = item_of(properties=pb.JsonObject(json=text))
    assert isinstance(item, Fault)
    assert (item.reason, item.metadata) == (error_pb2.ERROR_REASON_INVALID_FIELD, {"field": "properties"})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"", b""),
        (b' {"a": 1} ', b'{"a": 1}'),
        (b'{"a":1}', b'{"a":1}'),
        (b'{"a":"\\ud800"}', b'{"a":"\\ufffd"}'),
    ],
)
def test_objects_stay_the_bytes_that_were_sent(given: bytes, kept: bytes) -> None:
    item = item_of(context=pb.JsonObject(json=given))
    assert isinstance(item, ClientEvent)
    assert bytes(item.context) == kept


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_struct_with_a_number_that_json_lacks_refuses_its_event(number: float) -> None:
    given = pb.JsonObject()
    given.struct.update({"a": [1, {"b": 2}]})
    given.struct["a"][1]["b"] = number
    item = item_of(traits=given)
    assert isinstance(item, Fault)
    assert (item.reason, item.metadata) == (error_pb2.ERROR_REASON_INVALID_FIELD, {"field": "traits"})
