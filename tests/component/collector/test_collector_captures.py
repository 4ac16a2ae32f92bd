"""What real SDKs really sent, byte for byte, and what must come of it: the answer and the exact events."""

import pytest

from cdi_cli.embedded import ServiceProcess

from . import golden
from .conftest import Stored, apply_source


@pytest.mark.parametrize("capture", golden.captures())
async def test_a_capture_becomes_its_golden_events(collector: ServiceProcess, stored: Stored, capture: str) -> None:
    apply_source(collector, workspace_id="acme", source_id="captured", write_keys=golden.WRITE_KEYS)
    seen = 0
    for request in golden.requests_of(capture):
        answer = golden.replayed(collector, request.read_bytes())
        events = (await stored.collected())[seen:]
        seen += len(events)
        golden.check(request, answer, events)
    assert seen
    assert await stored.rejected() == []
