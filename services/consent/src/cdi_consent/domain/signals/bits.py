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
        value: the bits as one number: shifting it costs less than anything else, up to thousands of bits.
        size: how many they are.
    """

    __slots__ = ("size", "value")

    def __init__(self, value: int, size: int) -> None:
        self.value = value
        self.size = size

    def uint(self, at: int, width: int) -> int:
        """``width`` bits from bit ``at`` on as a number.

        Raises:
            Unreadable: the string ends before.
        """
        after = self.size - at - width
        if after < 0:
            raise Unreadable(f"ends at bit {self.size}")
        return self.value >> after & (1 << width) - 1


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
    size = len(text) * 6
    return Bits(int.from_bytes(octets, "big") >> len(octets) * 8 - size, size)
