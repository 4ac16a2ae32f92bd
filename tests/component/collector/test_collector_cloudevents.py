"""CloudEvents in the three modes of their HTTP binding, the first two as the Python SDK writes them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from cdi.event.v1 import event_pb2
from cdi_cli.embedded import ServiceProcess

from .conftest import BASIC, Stored, post

BATCH = {"Content-Type": "application/cloudevents-batch+json", **BASIC}
STRUCTURED = {"Content-Type": "application/cloudevents+json", **BASIC}
ATTRIBUTES = {"specversion": "1.0", "type": "com.example.ordered", "source": "/orders", "id": "7"}


@pytest.mark.parametrize("written", [to_structured, to_binary])
async def test_what_the_python_sdk_writes(collector: ServiceProcess, stored: Stored, written: Any) -> None:
    attributes = ATTRIBUTES | {"subject": "u1", "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "note": "Grüße, 5 €"}
    message = written(CloudEvent(attributes | {"datacontenttype": "application/json"}, {"total": 19.95}), JSONFormat())
    answer = post(collector, "/v1/cloudevents", message.body, {**message.headers, **BASIC})
    assert (answer.status, answer.body) == (200, {"success": True})

    (event,) = await stored.collected()
    assert (event.type, event.name, event.message_id) == (event_pb2.EVENT_TYPE_TRACK, "com.example.ordered", "/orders 7")
    assert (event.user_id, event.original_time.ToJsonString()) == ("u1", "2026-01-02T03:04:05Z")
    assert event.event_time == event.original_time
    assert json.loads(event.properties) == {"total": 19.95}
    kept = json.loads(event.context)["cloudevents"]
    assert kept == {
        "specversion": "1.0",
        "source": "/orders",
        "id": "7",
        "subject": "u1",
        "note": "Grüße, 5 €",
        "datacontenttype": "application/json",
    }


async def test_a_batch_keeps_its_good_ones(collector: ServiceProcess, stored: Stored) -> None:
    bad = {"specversion": "1.0", "id": "8", "type": "x"}
    answer = post(collector, "/v1/cloudevents", [ATTRIBUTES | {"data": [1]}, bad, ATTRIBUTES | {"id": "9", "subject": "u2"}], BATCH)
    assert answer.status == 200
    found = {event.message_id: event for event in await stored.collected()}
    assert {name: (event.user_id, event.anonymous_id) for name, event in found.items()} == {
        "/orders 7": ("", "/orders"),
        "/orders 9": ("u2", ""),
    }
    assert json.loads(found["/orders 7"].properties) == {"data": [1]}
    (rejected,) = await stored.rejected()
    assert (rejected.reason, json.loads(rejected.payload)) == ("missing_field", bad)


async def test_data_that_is_no_json_is_kept_and_the_key_may_be_in_the_url(collector: ServiceProcess, stored: Stored) -> None:
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()} | {"Content-Type": "text/plain"}
    assert post(collector, "/v1/cloudevents?writeKey=test-key", b"\x01\x02", headers).status == 200
    (event,) = await stored.collected()
    assert json.loads(event.properties) == {"data_base64": "AQI="}
    assert json.loads(event.context)["cloudevents"]["datacontenttype"] == "text/plain"


BAD = {
    "no key": (ATTRIBUTES, {"Content-Type": "application/cloudevents+json"}, 401, "unknown_write_key"),
    "empty": (b"", STRUCTURED, 400, "malformed_payload"),
    "no JSON": (b"{", STRUCTURED, 400, "malformed_payload"),
    "another version": (ATTRIBUTES | {"specversion": "0.3"}, STRUCTURED, 400, "invalid_field"),
    "no source": ({"specversion": "1.0", "id": "7", "type": "x"}, STRUCTURED, 400, "missing_field"),
    "headers of an event around nothing that is one": (b"5", {"ce-specversion": "1.0", **STRUCTURED}, 400, "malformed_payload"),
    "binary without its attributes": (b"{}", {"ce-specversion": "1.0", "Content-Type": "application/json", **BASIC}, 400, "missing_field"),
    "data that is not what it says": (
        b"{",
        {"Content-Type": "application/json", **BASIC} | {f"ce-{name}": value for name, value in ATTRIBUTES.items()},
        400,
        "malformed_payload",
    ),
    "many events": ([{}] * 2_501, BATCH, 413, "too_large"),
    "a large event": (ATTRIBUTES | {"data": "x" * 33_000}, STRUCTURED, 413, "too_large"),
}


async def test_bad_input_has_clear_answers(collector: ServiceProcess, stored: Stored) -> None:
    for name, (body, headers, status, code) in BAD.items():
        answer = post(collector, "/v1/cloudevents", body, headers)
        assert (name, answer.status, answer.body["code"]) == (name, status, code)
    assert (await stored.collected(), await stored.rejected()) == ([], [])
