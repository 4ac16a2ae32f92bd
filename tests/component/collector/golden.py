"""What a collector makes of captured requests, held against readable files.

A folder of ``tests/golden/collector`` has the requests of one SDK as they were on the wire, ``NNN.raw``, and the events that they must
become, ``events.json``. After a wanted change, ``UPDATE_GOLDEN=1`` in the environment writes the files anew: read their diff.
"""

import json
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from cdi.event.v1.event_pb2 import Event

GOLDEN = Path(__file__).parents[2] / "golden" / "collector"
_JSON = ("properties", "traits", "context", "integrations")


def readable(event: Event) -> dict[str, Any]:
    """An event with its JSON as JSON and without what differs from run to run: an event time that follows from the time of receipt is
    given as its distance from it."""
    shown: dict[str, Any] = MessageToDict(event, preserving_proto_field_name=True)
    for field in _JSON:
        if text := getattr(event, field):
            shown[field] = json.loads(text)
    del shown["received_time"]
    if event.HasField("sent_time") and event.HasField("original_time"):
        lag = event.sent_time.ToMicroseconds() - event.original_time.ToMicroseconds()
        if event.event_time.ToMicroseconds() == event.received_time.ToMicroseconds() - lag:
            shown["event_time"] = f"received_time - {timedelta(microseconds=lag).total_seconds():g} s"
    return shown


def check_golden(capture: str, events: Sequence[Event], made: str = "") -> None:
    """Holds events against ``events.json`` of a capture; ``made`` is a pattern of what the collector makes up, shown as ``<made>``."""
    path = GOLDEN / capture / "events.json"
    found = json.dumps([readable(event) for event in events], indent=2, ensure_ascii=False) + "\n"
    if made:
        found = re.sub(made, "<made>", found)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found)
    assert json.loads(found) == json.loads(path.read_text())
