"""Sets of vendor ids as TC strings write them: a bit per vendor, or ranges."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from cdi_consent.domain.signals.bits import Bits
from cdi_consent.domain.signals.signal import Unreadable

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""First and last id of each range, inclusive."""

_ID_BITS: Final = 16
_ENTRY_BITS: Final = 1 + _ID_BITS
_COUNT_BITS: Final = 12


class VendorIds(msgspec.Struct, frozen=True, gc=False):
    """Vendor ids, not unpacked: the bits where there is one per vendor, else the ranges. A struct: two or three are made per string.

    Attributes:
        last: the highest id that the set speaks of.
        bits: a number with a bit per vendor; vendor 1 is bit ``before`` - 1 from the right, the others follow to the right.
        before: see ``bits``; 0 where there are ranges.
        ranges: where there are no bits.
    """

    last: int
    bits: int = 0
    before: int = 0
    ranges: Ranges = ()

    def has(self, vendor: int) -> bool:
        """Whether a vendor is in the set."""
        if not 0 < vendor <= self.last:
            return False
        if self.before:
            return bool(self.bits >> self.before - vendor & 1)
        return any(first <= vendor <= last for first, last in self.ranges)


NO_VENDORS: Final = VendorIds(0)


def read_vendors(bits: Bits, at: int) -> tuple[VendorIds, int]:
    """A vendor section: MaxVendorId, IsRangeEncoding, and a BitField or a Range Section ("Vendor Consent Section").

    Returns:
        The vendors, and the place after the section.

    Raises:
        Unreadable: the string ends before, or a range runs backwards.
    """
    head, left = bits.uint(at, _ID_BITS + 1), bits.size - at - _ID_BITS - 1
    last = head >> 1
    if head & 1:
        ranges, left = read_ranges(bits.value, left - _COUNT_BITS, bits.uint(at + _ID_BITS + 1, _COUNT_BITS))
        return VendorIds(last, ranges=ranges), bits.size - left
    if left < last:
        raise Unreadable(f"ends at bit {bits.size}")
    return VendorIds(last, bits.value, left), bits.size - left + last


def read_ranges(rest: int, left: int, count: int) -> tuple[Ranges, int]:
    """As many RangeEntry as NumEntries before them says ("Range Section").

    Args:
        rest: bits, the last of which are to be read.
        left: how many of them.
        count: NumEntries.

    Returns:
        First and last id of each range, and how many bits are left after them.

    Raises:
        Unreadable: the string ends before, or a range runs backwards.
    """
    ranges: list[tuple[int, int]] = []
    for _ in range(count):
        if left < _ENTRY_BITS:
            raise Unreadable("ends within ranges")
        left -= _ENTRY_BITS
        entry = rest >> left
        first = last = entry & 0xFFFF
        if entry >> _ID_BITS & 1:
            if left < _ID_BITS:
                raise Unreadable("ends within ranges")
            left -= _ID_BITS
            last = rest >> left & 0xFFFF
        if not 0 < first <= last:
            raise Unreadable(f"a range of vendors from {first} to {last}")
        ranges.append((first, last))
    return tuple(ranges), left
