"""Built events are valid and say what the test said."""

import json

from cdi.event.v1.event_pb2 import EVENT_TYPE_IDENTIFY, EVENT_TYPE_TRACK
from cdi_kernel import topology
from cdi_testing import builders


def test_default_is_a_track_of_a_known_person_on_its_partition() -> None:
    built = builders.event()
    assert (built.type, built.name, built.user_id) == (EVENT_TYPE_TRACK, "Product Viewed", "user-1")
    assert built.partition == topology.partition_of(built.workspace_id, "user-1", topology.DEFAULT_PARTITIONS)
    assert built.event_time.ToJsonString() == "2026-01-15T12:00:00Z"


def test_every_event_has_its_own_message_id() -> None:
    assert builders.event().message_id != builders.event().message_id


def test_stated_fields_win() -> None:
    built = builders.identify(anonymous_id="a", traits={"plan": "pro"}, partition=3, message_id="m")
    assert (built.type, built.user_id, built.partition, built.message_id) == (EVENT_TYPE_IDENTIFY, "", 3, "m")
    assert json.loads(built.traits) == {"plan": "pro"}


def test_http_message_speaks_the_protocol_of_the_sdks() -> None:
    message = builders.http_message("alias", userId="u")
    assert (message["type"], message["userId"], message["previousId"]) == ("alias", "u", "user-0")
