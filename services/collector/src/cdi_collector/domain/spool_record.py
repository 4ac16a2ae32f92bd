"""How a message is written into the spool, and how what a crash left of a file is read.

A record is ``marker | length | checksum | body``: eight bytes chosen at random for the file, two little-endian 32-bit numbers, and a
msgpack array. The checksum (CRC-32, the only fast one of the standard library) covers length and body. A record that a crash or a disk
has damaged is found by its checksum, and the next good one by the marker. Clients choose most of a body; since they cannot know the
marker, nothing that they send is ever taken for a record of its own.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from cdi_kernel.envelope import EVENTS

MARKER_BYTES: Final = 8

_HEAD: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A message that waits. Later versions may add attributes with defaults at the end.

    Attributes:
        subject: where it goes.
        message_id: the same at every attempt, so that JetStream drops repetitions.
        headers: further headers.
        payload: its bytes.
        spooled_us: when it was written, in microseconds since 1970.
    """

    subject: str
    message_id: str
    headers: dict[str, str]
    payload: bytes
    spooled_us: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What is readable of some bytes.

    Attributes:
        records: in order.
        unreadable: bytes between them that are no record.
        end: where the last record ends. What follows is torn or damaged.
    """

    records: list[Record]
    unreadable: int
    end: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def encode(record: Record, marker: bytes) -> bytes:
    """A record as it stands in a file with this marker."""
    body = _encode(record)
    length = _LENGTH.pack(len(body))
    return b"".join((marker, length, _LENGTH.pack(_checksum(length, body)), body))


def scan(content: bytes, marker: bytes) -> Scan:
    """Reads all good records. Never fails, never yields a record that was not written whole."""
    records: list[Record] = []
    unreadable = end = search = 0
    while (found := content.find(marker, search)) >= 0:
        start = found + MARKER_BYTES
        stop = _end_of_body(content, start)
        if stop is None:
            search = found + 1
            continue
        records.append(_decode(content[start + _HEAD.size : stop]))
        unreadable += found - end
        end = search = stop
    return Scan(records, unreadable, end)


def events_of(record: Record) -> int:
    """How many events a record holds, as its header says."""
    return int(record.headers[EVENTS])


def _end_of_body(content: bytes, start: int) -> int | None:
    """Where the record ends whose head stands at ``start``; ``None`` if it is not a whole and undamaged one."""
    if start + _HEAD.size > len(content):
        return None
    length, checksum = _HEAD.unpack_from(content, start)
    stop: int = start + _HEAD.size + length
    if stop > len(content):
        return None
    head = content[start : start + _LENGTH.size]
    return stop if _checksum(head, content[start + _HEAD.size : stop]) == checksum else None


def _checksum(length: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(length))
