"""``cdi.event.v1.Event`` written by hand, field by field: half the time of building the message (2.1 against 4.0 µs per event).

The result is the protobuf wire format, where fields may stand in any order and a message is the concatenation of its fields; a test
with random events holds it against the generated code. Field numbers are checked against the descriptor when the module loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdi.event.v1 import event_pb2
from cdi_kernel.wire import varint

TABLE_SIZE: Final = 4_097
"""Lengths below it have their bytes in a table."""

_DIGITS: Final = 14
_LOW: Final = (1 << _DIGITS) - 1
_CACHED_SECONDS: Final = 10_000


# Numbers of 14 bits, at the end of a varint and with more to follow.
_SMALL: Final = tuple(varint(number) for number in range(1 << _DIGITS))
_FOLLOWED: Final = tuple(bytes((number & 0x7F | 0x80, number >> 7 | 0x80)) for number in range(1 << _DIGITS))
_FRAME_HEADS: Final = tuple(b"\x0a" + length for length in _SMALL)
_MILLISECONDS: Final = (b"", *(b"\x10" + varint(number * 1_000_000) for number in range(1, 1_000)))


class Field:
    """A length-delimited field of ``Event``.

    Attributes:
        tag: the field's tag.
        heads: tag and length together, by the length of what follows.
    """

    __slots__ = ("heads", "tag")

    def __init__(self, name: str) -> None:
        self.tag = _tag(name, 2)
        self.heads = tuple(self.tag + length for length in _SMALL[:TABLE_SIZE])

    def of(self, content: bytes) -> tuple[bytes, bytes]:
        """The field with this content, in two parts."""
        length = len(content)
        return (self.heads[length] if length < TABLE_SIZE else self.tag + varint(length)), content


def _tag(field: str, kind: int) -> bytes:
    return varint(event_pb2.Event.DESCRIPTOR.fields_by_name[field].number << 3 | kind)


MESSAGE_ID: Final = Field("message_id")
NAME: Final = Field("name")
CATEGORY: Final = Field("category")
USER_ID: Final = Field("user_id")
ANONYMOUS_ID: Final = Field("anonymous_id")
GROUP_ID: Final = Field("group_id")
PREVIOUS_ID: Final = Field("previous_id")
CLIENT_IP: Final = Field("client_ip")
USER_AGENT: Final = Field("user_agent")
PROPERTIES: Final = Field("properties")
TRAITS: Final = Field("traits")
CONTEXT: Final = Field("context")
INTEGRATIONS: Final = Field("integrations")
TRACEPARENT: Final = Field("traceparent")
SCHEMA_URI: Final = Field("schema_uri")
ORIGINAL_TIME: Final = _tag("original_time", 2)
SENT_TIME: Final = _tag("sent_time", 2)
RECEIVED_TIME: Final = _tag("received_time", 2)
EVENT_TIME: Final = _tag("event_time", 2)
EVENT_TIME_HEADS: Final = tuple(EVENT_TIME + length for length in _SMALL[:0x80])
"""The event time's tag with the length of what follows; no time has more bytes."""

TYPE: Final = _tag("type", 0)
PARTITION: Final = _tag("partition", 0)

_seconds: dict[int, bytes] = {}


def size(length: int) -> bytes:
    """A length or another small number as a varint."""
    return _SMALL[length] if length <= _LOW else varint(length)


def timestamp(micros: int) -> bytes:
    """A ``google.protobuf.Timestamp`` with its length in front. Events of one time share their seconds, so these are remembered."""
    seconds = micros // 1_000_000
    rest = micros - seconds * 1_000_000
    try:
        head = _seconds[seconds]
    except KeyError:
        if len(_seconds) >= _CACHED_SECONDS:
            _seconds.clear()
        head = _seconds[seconds] = b"\x08" + varint(seconds) if seconds else b""
    millis = rest // 1_000
    body = head + (_MILLISECONDS[millis] if rest == millis * 1_000 else b"\x10" + _nanoseconds(rest * 1_000))
    return _SMALL[len(body)] + body


def _nanoseconds(number: int) -> bytes:
    """``varint`` of a number below 2⁴² in a third of the time."""
    high = number >> _DIGITS
    if not high:
        return _SMALL[number]
    return _FOLLOWED[number & _LOW] + (_SMALL[high] if high <= _LOW else _FOLLOWED[high & _LOW] + _SMALL[high >> _DIGITS])


def framed(parts: Iterable[bytes]) -> bytes:
    """Fields as one event of an ``EventBatch`` (``cdi_kernel.envelope.frame`` does the same for bytes that are one already)."""
    event = b"".join(parts)
    length = len(event)
    return (_FRAME_HEADS[length] if length <= _LOW else b"\x0a" + varint(length)) + event
