"""Protobuf's wire format, for messages that are written as bytes because an object per event would cost more than everything else."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """An integer as tags, lengths and values are written: base 128, a negative one as its two's complement of 64 bits."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
