"""What real SDKs really sent, byte for byte, and what must come of it: the answer and the exact events."""

import json

import pytest

from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess

from .conftest import Stored, apply_source
from .golden import GOLDEN, WRITE_KEYS, captures, readable, replayed


@pytest.mark.parametrize("capture", captures("segment-", "rudder-", "jitsu-", "posthog-"))
async def test_a_capture_becomes_its_golden_events(collector: ServiceProcess, stored: Stored, capture: str) -> None:
    apply_source(collector, workspace_id="acme", source_id="captured", write_keys=WRITE_KEYS)
    seen = 0
    for request in sorted((GOLDEN / capture).glob("*.raw")):
        golden = json.loads(request.with_suffix(".json").read_text())
        answer = replayed(collector, request.read_bytes())
        events = (await stored.collected())[seen:]
        seen += len(events)
        found = {"answer": answer, "events": sorted(map(readable, events), key=lambda event: event["message_id"])}
        assert (request.name, found) == (request.name, golden)
        for event in events:
            assert_the_clock_is_corrected(event)
    assert seen
    assert await stored.rejected() == []


def assert_the_clock_is_corrected(event: Event) -> None:
    original, sent = event.original_time.ToMicroseconds(), event.sent_time.ToMicroseconds()
    assert event.event_time.ToMicroseconds() - event.received_time.ToMicroseconds() == original - sent
