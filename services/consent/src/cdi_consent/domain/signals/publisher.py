"""What the publisher says in a TC string: restrictions of vendors, and consent to its own purposes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from cdi_consent.domain.signals.bits import Bits
from cdi_consent.domain.signals.vendors import Ranges, read_ranges

REQUIRE_CONSENT: Final = 1
REQUIRE_INTEREST: Final = 2

_PURPOSES: Final = 24
_COUNT_BITS: Final = 12
_HEAD_BITS: Final = 6 + 2 + _COUNT_BITS


class Restriction(NamedTuple):
    """One entry of the Publisher Restrictions Section.

    Attributes:
        purpose: the purpose that it concerns.
        kind: RestrictionType: 0 not allowed, 1 require consent, 2 require legitimate interest; 3 is not defined and allows nothing.
        ranges: the vendors that it concerns.
    """

    purpose: int
    kind: int
    ranges: Ranges


def read_restrictions(bits: Bits, at: int) -> tuple[Restriction, ...]:
    """NumPubRestrictions and as many entries ("Publisher Restrictions Section").

    Raises:
        Unreadable: the string ends before, or a range runs backwards.
    """
    count, left = bits.uint(at, _COUNT_BITS), bits.size - at - _COUNT_BITS
    found: list[Restriction] = []
    for _ in range(count):
        head = bits.uint(bits.size - left, _HEAD_BITS)
        ranges, left = read_ranges(bits.value, left - _HEAD_BITS, head & 0xFFF)
        found.append(Restriction(head >> 14, head >> 12 & 3, ranges))
    return tuple(found)


def may(by_interest: bool, consent: bool, interest: bool, restrictions: Iterable[Restriction], vendor: int, purpose: int) -> bool:
    """Whether a vendor may process for a purpose ("Publisher Restrictions Section", RestrictionType).

    "Not allowed" always counts. "Require consent" and "require legitimate interest" change the basis that is looked at, which is what
    a vendor with that flexibility must do; where both are required, both must be there.

    Args:
        by_interest: the vendor relies on legitimate interest; otherwise on consent.
        consent: vendor and purpose have consent.
        interest: the legitimate interest of the vendor in the purpose is established and not objected to.
        restrictions: of the string.
        vendor: the vendor's id.
        purpose: the purpose's number.
    """
    kinds = {
        restriction.kind
        for restriction in restrictions
        if restriction.purpose == purpose and any(first <= vendor <= last for first, last in restriction.ranges)
    }
    if not kinds:
        return interest if by_interest else consent
    if kinds - {REQUIRE_CONSENT, REQUIRE_INTEREST}:
        return False
    return (consent or REQUIRE_CONSENT not in kinds) and (interest or REQUIRE_INTEREST not in kinds)


class Publisher(NamedTuple):
    """The segment Publisher Purposes Transparency and Consent: text of 0 and 1 per field, number 1 at the left.

    Attributes:
        consents: PubPurposesConsent.
        interests: PubPurposesLITransparency.
        custom_consents: CustomPurposesConsent.
        custom_interests: CustomPurposesLITransparency.
    """

    consents: str = ""
    interests: str = ""
    custom_consents: str = ""
    custom_interests: str = ""

    def answer(self, subject: str, number: int) -> bool | None:
        """The answer to ``tcf.publisher.<subject>.<number>``: ``purpose``, ``li``, ``custom`` or ``custom_li``."""
        if subject == "purpose":
            field = self.consents
        elif subject == "li":
            field = self.interests
        else:
            field = self.custom_consents if subject == "custom" else self.custom_interests
        return field[number - 1] == "1" if number <= len(field) else None


NO_PUBLISHER: Final = Publisher()


def read_publisher(bits: Bits) -> Publisher:
    """Reads the segment.

    Raises:
        Unreadable: it ends before.
    """
    head, at = bits.uint(3, 2 * _PURPOSES + 6), 3 + 2 * _PURPOSES + 6
    count = head & 0x3F
    purposes = f"{head >> 6:0{2 * _PURPOSES}b}"
    custom = f"{bits.uint(at, 2 * count):0{2 * count}b}" if count else ""
    return Publisher(purposes[:_PURPOSES], purposes[_PURPOSES:], custom[:count], custom[count:])
