"""Captured requests of real SDKs, and how the answer and the events that they become are written down.

A folder of ``tests/golden/collector`` is one SDK: ``NNN.raw`` are the bytes that it sent, ``NNN.json`` what must come of them. After a
wanted change, ``UPDATE_GOLDEN=1`` in the environment writes the files anew: read their diff.
"""

import http.client
import json
import os
import re
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess

GOLDEN = Path(__file__).parents[2] / "golden" / "collector"
WRITE_KEYS = ["WRITEKEY", "keyid:keysecret", "shop", "phc_WRITEKEY"]
"""The keys that the captured SDKs were given."""

_SHOWN_HEADERS = ("content-type", "access-control-")
_JSON = ("properties", "traits", "context", "integrations")
_MADE = re.compile(r'(?<="network_userid": ")[0-9a-f-]{36}')
"""What the collector makes up."""


def captures() -> list[str]:
    """The folders of all SDKs."""
    return sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())


def requests_of(capture: str) -> list[Path]:
    """The requests of one SDK in the order in which it sent them."""
    return sorted((GOLDEN / capture).glob("*.raw"))


def replayed(collector: ServiceProcess, raw: bytes) -> dict[str, Any]:
    """The answer to bytes on a connection of their own."""
    host, _, port = collector.addresses["http"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        response = http.client.HTTPResponse(connection, method=raw.partition(b" ")[0].decode())
        response.begin()
        content = response.read()
    headers = {name.lower(): value for name, value in response.getheaders() if name.lower().startswith(_SHOWN_HEADERS)}
    body = json.loads(content) if headers.get("content-type") == "application/json" else content.decode("latin-1")
    return {"status": response.status, "headers": headers, "body": body}


def check(request: Path, answer: dict[str, Any], events: Sequence[Event]) -> None:
    """Holds the answer to a captured request, and the events that it became, against their golden file."""
    shown = sorted(map(readable, events), key=lambda event: str(event["message_id"]))
    found = _MADE.sub("<made>", json.dumps({"answer": answer, "events": shown}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    golden = request.with_suffix(".json")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert (request.name, json.loads(found)) == (request.name, json.loads(golden.read_text()))


def readable(event: Event) -> dict[str, Any]:
    """An event with its JSON as JSON and without what differs from run to run.

    An event time that follows from the time of receipt is given as its distance from it.
    """
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
