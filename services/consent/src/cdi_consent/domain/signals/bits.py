"""Bit strings as the IAB writes them: base64url without padding, big-endian, six bits a character."""

from __future__ import annotations

import binascii
from typing import Final

from cdi_consent.domain.signals.signal import Unreadable

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What is base64 but not base64url becomes something that is neither.
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/...")


class Bits:
    """A bit string. A plain class with slots, because its two members are read for every field of every string.

    Attributes:
        octets: the bits, filled up with zeros to whole octets.
        size: how many bits were sent.
    """

    __slots__ = ("octets", "size")

    def __init__(self, octets: bytes, size: int) -> None:
        self.octets = octets
        self.size = size

    octets: bytes
    size: int

    def uint(self, at: int, width: int) -> int:
        """``width`` bits from bit ``at`` on as a number. Takes a few octets, however long the string is.

        Raises:
            Unreadable: the string ends before.
        """
        end = at + width
        if end > self.size:
            raise Unreadable(f"ends at bit {self.size}")
        return int.from_bytes(self.octets[at >> 3 : (end + 7) >> 3], "big") >> (-end & 7) & ((1 << width) - 1)

    def rest(self, at: int) -> tuple[int, int]:
        """All bits from ``at`` on as one number, and how many they are: for reading many short fields, which shift it.

        Raises:
            Unreadable: the string ends before.
        """
        if at > self.size:
            raise Unreadable(f"ends at bit {self.size}")
        padding = len(self.octets) * 8 - self.size
        return int.from_bytes(self.octets[at >> 3 :], "big") >> padding & (1 << self.size - at) - 1, self.size - at


def decoded(text: str) -> Bits:
    """Reads base64url; a length that is no multiple of four is as good as any other (GPP, "Creating a GPP String").

    Raises:
        Unreadable: a character is not of the alphabet; says at which place the first one is.
    """
    try:
        # Padding with zero bits in place of "=": the reference encoders end on any multiple of six bits.
        octets = binascii.a2b_base64(text.encode("ascii").translate(_TO_BASE64) + b"AAAA"[: -len(text) & 3], strict_mode=True)
    except ValueError:
        at = next((at for at, character in enumerate(text) if character not in _ALPHABET), 0)
        raise Unreadable(f"bad base64 at {at}") from None
    return Bits(octets, len(text) * 6)
