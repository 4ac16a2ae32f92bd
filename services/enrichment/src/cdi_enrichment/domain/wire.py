"""Messages written as bytes, where building an object per event would cost more than everything else.

Source: the protobuf encoding. A field is its tag, the length of its content and the content; fields may stand in any order, a message
is the concatenation of its fields, and of a field that stands twice the last one counts. Hence what this service adds to an event is
appended to the bytes that the collector wrote, and the tests compare with what protobuf itself makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

_LENGTH_DELIMITED: Final = 2


def varint(number: int) -> bytes:
    """A number as protobuf writes tags and lengths."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_LENGTHS: Final = [varint(length) for length in range(1_024)]
"""Of nearly everything that is written."""


def field(message: type[Message], name: str) -> Callable[[bytes], bytes]:
    """A function that writes a text, a ``bytes`` or a message as this field of a message."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    tag = varint(number << 3 | _LENGTH_DELIMITED)
    heads = [tag + length for length in _LENGTHS]

    def write(content: bytes) -> bytes:
        length = len(content)
        return heads[length] + content if length < 1_024 else tag + varint(length) + content

    return write
