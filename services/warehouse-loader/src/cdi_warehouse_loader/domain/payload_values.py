"""What a rejected event's payload says, as a set of texts: whether an id is among them decides whose it was.

The payload may be anything: JSON of any protocol, a query, a serialized event, a part of one. So no member's name is trusted; every text
in it counts, and an event is a person's as soon as one of them is an id of the person. That errs towards erasing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

import msgspec
from google.protobuf.message import DecodeError

from cdi.event.v1.event_pb2 import Event

BASE64: Final = "base64"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARTS = re.compile(r"[&=?;,{}\[\]\s]+")
_RUNS = re.compile(r"[^\x00-\x1f\ufffd]+")
_decode_text = msgspec.json.Decoder(str).decode


def payload_values(payload: str, encoding: str) -> set[str]:
    """All texts in a payload as ``rejected_events`` keeps it.

    Args:
        payload: the column ``payload``.
        encoding: the column ``payload_encoding``.
    """
    if encoding != BASE64:
        return set(_texts(payload))
    try:
        raw = base64.b64decode(payload)
    except binascii.Error:
        return set()
    return bytes_values(raw)


def bytes_values(raw: bytes) -> set[str]:
    """All texts in the bytes of a payload: a serialized event, or what a client sent."""
    try:
        event = Event.FromString(raw)
    except DecodeError:
        event = Event()
    values = {event.user_id, event.anonymous_id, event.previous_id, *(each.value for each in event.external_ids)}
    for part in (event.properties, event.traits, event.context):
        values.update(_texts(part.decode("utf-8", "replace")))
    text = raw.decode("utf-8", "replace")
    values.update(_texts(text), _RUNS.findall(text))
    return values - {""}


def _texts(text: str) -> Iterable[str]:
    for quoted in _QUOTED.findall(text):
        try:
            yield _decode_text(quoted.encode("utf-8", "replace"))
        except msgspec.DecodeError:
            yield quoted[1:-1]
    yield from map(unquote_plus, _PARTS.split(text))
