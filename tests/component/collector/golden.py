"""Captured requests of real SDKs, and how the answer and the events that they become are written down.

A folder of ``tests/golden/collector`` is one SDK: ``NNN.raw`` are the bytes that it sent, ``NNN.json`` what must come of them.
"""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess

GOLDEN = Path(__file__).parents[2] / "golden" / "collector"
WRITE_KEYS = ["WRITEKEY", "keyid:keysecret", "phc_WRITEKEY"]
"""The keys that the captured SDKs were given."""

_SHOWN_HEADERS = ("content-type", "access-control-")
_BY_THE_CLOCK = ("received_time", "event_time")


def captures(*families: str) -> list[str]:
    """The folders of SDKs whose names start so."""
    return sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir() and folder.name.startswith(families))


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


def readable(event: Event) -> dict[str, Any]:
    """An event as JSON, without the times that the collector's clock has a part in."""
    return {field.name: _value(field, value) for field, value in event.ListFields() if field.name not in _BY_THE_CLOCK}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return json.loads(value) if isinstance(value, bytes) else value
