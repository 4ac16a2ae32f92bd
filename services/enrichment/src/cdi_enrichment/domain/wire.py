"""Messages written as bytes, where building an object per event would cost more than everything else.

Source: the protobuf encoding. A field is its tag, the length of its content and the content; fields may stand in any order, a message
is the concatenation of its fields, and of a field that stands twice the last one counts. Hence what this service adds to an event is
appended to the bytes that the collector wrote, and the tests compare with what protobuf itself makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import Message

from cdi_kernel.wire import varint

_LENGTH_DELIMITED: Final = 2
_FIRST: Final = 1 << 3 | _LENGTH_DELIMITED
_TABLE_SIZE: Final = 4_096


_LENGTHS: Final = [varint(length) for length in range(_TABLE_SIZE)]
"""Of nearly everything that is written."""


def heads(message: type[Message], name: str) -> list[bytes]:
    """What stands before a text, a ``bytes`` or a message as this field of a message, by the length of the content: below 4,096."""
    tag = _tag(message, name)
    return [tag + length for length in _LENGTHS]


def field(message: type[Message], name: str) -> Callable[[bytes], bytes]:
    """A function that writes a text, a ``bytes`` or a message as this field of a message."""
    tag, usual = _tag(message, name), heads(message, name)

    def write(content: bytes) -> bytes:
        length = len(content)
        return (usual[length] if length < _TABLE_SIZE else tag + varint(length)) + content

    return write


def _tag(message: type[Message], name: str) -> bytes:
    return varint(message.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED)


def each(payload: bytes, parsed: Sequence[Message]) -> list[bytes]:
    """The bytes of each message in a repeated field, in order: cut out of what they came in, a third of the cost of serializing them.

    Args:
        payload: a serialized message whose field 1 is the repeated one.
        parsed: what protobuf read of that field.
    """
    found = _contents(payload)
    return [message.SerializeToString() for message in parsed] if found is None else found


def _contents(payload: bytes) -> list[bytes] | None:
    """The contents of field 1 of a well-formed message; ``None`` if other fields stand beside it."""
    found: list[bytes] = []
    at, end = 0, len(payload)
    while at < end:
        if payload[at] != _FIRST:
            return None
        length = payload[at + 1]
        at += 2
        if length >= 0x80:
            length &= 0x7F
            shift = 7
            while (digit := payload[at]) >= 0x80:
                length |= (digit & 0x7F) << shift
                shift += 7
                at += 1
            length |= digit << shift
            at += 1
        found.append(payload[at : at + length])
        at += length
    return found
