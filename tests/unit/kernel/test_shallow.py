"""Shallow messages carry what the whole ones say."""

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.event.v1 import event_pb2
from cdi_kernel.shallow import shallow
from cdi_testing import builders


def test_sub_messages_stay_the_bytes_that_they_are() -> None:
    event = builders.track("Seen", properties={"a": 1})
    event.identity.profile_id = "p1"
    event.enrichments.geo.country = "DE"
    batch = event_pb2.EventBatch(events=[event, builders.page()])
    read = shallow(event_pb2.EventBatch, levels=2).FromString(batch.SerializeToString())
    (first, second) = read.events  # type: ignore[attr-defined]  # the class is made at run time
    assert (first.message_id, first.type) == (event.message_id, event_pb2.EVENT_TYPE_TRACK)
    assert event_pb2.IdentityResult.FromString(first.identity) == event.identity
    assert event_pb2.Enrichments.FromString(first.enrichments) == event.enrichments
    assert second.enrichments == b""
    assert (first.HasField("validation"), first.HasField("identity")) == (False, True)
    assert event_pb2.EventBatch.FromString(read.SerializeToString()) == batch
    assert event_pb2.Event.FromString(first.SerializeToString()) == event


def test_one_level_leaves_the_events_themselves_unread() -> None:
    batch = event_pb2.EventBatch(events=[builders.track("Seen")])
    read = shallow(event_pb2.EventBatch).FromString(batch.SerializeToString())
    assert list(read.events) == [batch.events[0].SerializeToString()]  # type: ignore[attr-defined]  # made at run time


def test_an_empty_sub_message_is_not_an_absent_one() -> None:
    enrichments = event_pb2.Enrichments(geo=event_pb2.Geo())
    read = shallow(event_pb2.Enrichments).FromString(enrichments.SerializeToString())
    assert (read.HasField("geo"), read.HasField("user_agent")) == (True, False)
    assert read.SerializeToString() == enrichments.SerializeToString()


def test_what_a_class_does_not_know_can_be_told_from_what_it_knows() -> None:
    request = pb.IngestEventsRequest(events=[pb.EventInput(message_id="m", properties_json=b"{}", original_time=Timestamp(seconds=1))])
    read = shallow(pb.IngestEventsRequest, 2, only=["message_id", "original_time"])
    narrow = read.FromString(request.SerializeToString())
    (event,) = narrow.events  # type: ignore[attr-defined]  # made at run time
    assert (event.message_id, event.HasField("original_time")) == ("m", True)
    assert narrow.SerializeToString() == request.SerializeToString()
    narrow.DiscardUnknownFields()
    request.events[0].ClearField("properties_json")
    assert narrow.SerializeToString() == request.SerializeToString()
