"""IAB TCF v2 TC strings (v2.0 to v2.3): purposes, vendors, legitimate interest, publisher restrictions, disclosed vendors.

Sections named here are those of IAB Tech Lab's "Transparency and Consent String with Global Vendor & CMP List Formats", version 2.
Deliberately absent: the Global Vendor List, and so which legal basis a vendor has declared: the key names the basis that it relies on.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final, NamedTuple

from cdi_consent.domain.signals.bits import Bits, decoded
from cdi_consent.domain.signals.publisher import NO_PUBLISHER, Publisher, Restriction, may, read_publisher, read_restrictions
from cdi_consent.domain.signals.signal import Answers, Reading, SignalKind, Unreadable
from cdi_consent.domain.signals.vendors import NO_VENDORS, VendorIds, read_vendors

VERSION: Final = 2
PURPOSES: Final = 24
SPECIAL_FEATURES: Final = 12
KNOWN_PURPOSES: Final = 11
KNOWN_FEATURES: Final = 2
"""Those that the policies define, and that ``answers`` spells out."""

MAX_LENGTH: Final = 16 * 1024
"""Characters. The longest that the reference implementation made for the tests has about a tenth of that."""

POLICY_2_2: Final = 4
"""TcfPolicyVersion from which on purposes 3 to 6 need consent ("Version History", May 2023)."""

POLICY_2_3: Final = 5
"""TcfPolicyVersion from which on Disclosed Vendors is a mandatory segment ("Version History", April 2025)."""

DISCLOSED_SINCE_DS: Final = 17_723_232_000
"""2026-03-01T00:00Z in deciseconds: strings from then on need the segment whatever policy version they name (IAB Europe, transition
to TCF v2.3)."""

_HEAD_BITS: Final = 213
_DISCLOSED, _ALLOWED, _PUBLISHER = 1, 2, 3
_SEGMENTS: Final = {_DISCLOSED: "disclosed vendors", _ALLOWED: "allowed vendors", _PUBLISHER: "publisher TC"}
_OF_PUBLISHER: Final = ("publisher.purpose", "publisher.li", "publisher.custom", "publisher.custom_li")
_SUBJECTS: Final = frozenset(("purpose", "li", "special_feature", "vendor", "vendor_li", *_OF_PUBLISHER))
_NEVER_LI: Final = 1 << PURPOSES - 1
_CONSENT_ONLY: Final = sum(1 << PURPOSES - purpose for purpose in (1, 3, 4, 5, 6))


class Question(NamedTuple):
    """A key of this standard, taken apart: ``tcf.vendor_li.755.purpose.2`` is ("vendor_li", 755, 2)."""

    subject: str
    number: int
    purpose: int


class Facts(NamedTuple):
    """What a TC string says, as far as keys ask for it.

    Attributes:
        consents: PurposesConsent, purpose 1 being the highest of 24 bits.
        interests: PurposesLITransparency likewise, without the purposes that legitimate interest is no basis for.
        features: SpecialFeatureOptIns, 12 bits.
        vendor_consents: vendors with consent.
        vendor_interests: vendors whose legitimate interest is established and was not objected to.
        restrictions: of the publisher.
        disclosed: vendors that the person was shown; ``None`` where the string need not say.
        publisher: the publisher's own purposes.
    """

    consents: int = 0
    interests: int = 0
    features: int = 0
    vendor_consents: VendorIds = NO_VENDORS
    vendor_interests: VendorIds = NO_VENDORS
    restrictions: tuple[Restriction, ...] = ()
    disclosed: VendorIds | None = None
    publisher: Publisher = NO_PUBLISHER


NO_FACTS: Final = Facts()


class TcReading(Reading, frozen=True, gc=False):
    """A TC string, read. ``answers`` holds the purposes and features that the policies define; ``answer`` knows everything.

    Attributes:
        facts: what it says.
    """

    facts: Facts = NO_FACTS

    def answer(self, key: str) -> bool | None:
        """As ``Reading.answer``. A vendor that the string does not mention has neither consent nor a legitimate interest."""
        question = question_of(key)
        if question is None:
            return None
        subject, number, purpose = question
        facts = self.facts
        if subject in ("vendor", "vendor_li"):
            if facts.disclosed is not None and not facts.disclosed.has(number):
                return False
            return _vendor(facts, subject == "vendor_li", number, purpose)
        if subject == "purpose":
            return _bit(facts.consents, number, PURPOSES)
        if subject == "li":
            return _bit(facts.interests, number, PURPOSES)
        if subject == "special_feature":
            return _bit(facts.features, number, SPECIAL_FEATURES)
        return facts.publisher.answer(subject.removeprefix("publisher."), number)


def _vendor(facts: Facts, by_interest: bool, vendor: int, purpose: int) -> bool | None:
    """Whether a disclosed vendor may process at all, or for a purpose, on the legal basis that it relies on."""
    consent, interest = facts.vendor_consents.has(vendor), facts.vendor_interests.has(vendor)
    if not purpose:
        return interest if by_interest else consent
    consented, established = _bit(facts.consents, purpose, PURPOSES), _bit(facts.interests, purpose, PURPOSES)
    if consented is None or established is None:
        return None
    return may(by_interest, consent and consented, interest and established, facts.restrictions, vendor, purpose)


def read(text: str) -> TcReading:
    """Reads a TC string.

    Raises:
        Unreadable: it is none of version 2, or breaks off.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"longer than {MAX_LENGTH} characters")
    first, *others = text.split(".")
    bits = decoded(first)
    if (version := bits.uint(0, 6)) != VERSION:
        raise Unreadable(f"version {version} is not read")
    # "The Core String": the fields of fixed width as one number.
    head = bits.uint(0, _HEAD_BITS)
    updated_ds, policy = head >> 135 & 0xFFFFFFFFF, head >> 75 & 0x3F
    features, consents, interests = head >> 61 & 0xFFF, head >> 37 & 0xFFFFFF, head >> 13 & 0xFFFFFF
    if head >> 12 & 1:  # PurposeOneTreatment: purpose 1 was not disclosed, so nobody consented to it.
        consents &= ~(1 << PURPOSES - 1)
    interests &= ~(_CONSENT_ONLY if policy >= POLICY_2_2 else _NEVER_LI)
    vendor_consents, at = read_vendors(bits, _HEAD_BITS)
    vendor_interests, at = read_vendors(bits, at)
    restrictions = read_restrictions(bits, at)
    disclosed, publisher, skipped = _read_segments(others) if others else (None, NO_PUBLISHER, ())
    if disclosed is None and (policy >= POLICY_2_3 or updated_ds >= DISCLOSED_SINCE_DS):
        disclosed, skipped = NO_VENDORS, (*skipped, "tcf: without the mandatory disclosed vendors, none counts as disclosed")
    return TcReading(
        SignalKind.TCF,
        _consent_answers(consents >> PURPOSES - KNOWN_PURPOSES)
        + _interest_answers(interests >> PURPOSES - KNOWN_PURPOSES)
        + _feature_answers(features >> SPECIAL_FEATURES - KNOWN_FEATURES),
        "",
        _version(policy, head >> 123 & 0xFFF, head >> 111 & 0xFFF, head >> 81 & 0xFFF),
        text,
        updated_ds * 100_000,
        skipped=skipped,
        facts=Facts(consents, interests, features, vendor_consents, vendor_interests, restrictions, disclosed, publisher),
    )


@lru_cache(maxsize=1_024)
def _version(policy: int, cmp: int, cmp_version: int, vendor_list: int) -> str:
    """The versions that a string names; few sites change them within a week."""
    return f"tcf {VERSION} policy {policy} cmp {cmp}/{cmp_version} gvl {vendor_list}"


# Tables rather than caches: their arguments have 11 and 2 bits, so there are no more than 2,048 and 4 answers to keep.
@cache
def _consent_answers(consents: int) -> Answers:
    return _spelled("tcf.purpose", consents, KNOWN_PURPOSES)


@cache
def _interest_answers(interests: int) -> Answers:
    return _spelled("tcf.li", interests, KNOWN_PURPOSES)


@cache
def _feature_answers(features: int) -> Answers:
    return _spelled("tcf.special_feature", features, KNOWN_FEATURES)


def _spelled(prefix: str, field: int, width: int) -> Answers:
    return tuple((f"{prefix}.{number}", bool(field >> width - number & 1)) for number in range(1, width + 1))


def _read_segments(texts: list[str]) -> tuple[VendorIds | None, Publisher, tuple[str, ...]]:
    """The segments after the core, in any order ("TC String Format"): disclosed vendors, the publisher's purposes, what was skipped."""
    found: dict[int, Bits] = {}
    skipped: list[str] = []
    for text in texts:
        bits = decoded(text)
        kind = bits.uint(0, 3)
        if kind in found:
            raise Unreadable(f"two segments {_SEGMENTS[kind]}")
        if kind in _SEGMENTS:
            found[kind] = bits
        else:
            skipped.append(f"tcf: segment of type {kind}")
    disclosed = read_vendors(found[_DISCLOSED], 3)[0] if _DISCLOSED in found else None
    if _ALLOWED in found:
        read_vendors(found[_ALLOWED], 3)
        skipped.append("tcf: allowed vendors, which concern legal bases outside of the framework")
    return disclosed, read_publisher(found[_PUBLISHER]) if _PUBLISHER in found else NO_PUBLISHER, tuple(skipped)


def _bit(field: int, number: int, width: int) -> bool | None:
    """Bit ``number`` of a field, counted from 1 at the left; ``None`` beyond it."""
    return bool(field >> width - number & 1) if number <= width else None


@lru_cache(maxsize=4_096)
def question_of(key: str) -> Question | None:
    """A key taken apart; ``None`` if it is no key of this standard."""
    parts = key.split(".")
    if parts[0] != "tcf":
        return None
    if len(parts) == 5 and parts[1] in ("vendor", "vendor_li") and parts[3] == "purpose":
        number, purpose = _number(parts[2]), _number(parts[4])
        return Question(parts[1], number, purpose) if number and purpose else None
    subject = ".".join(parts[1:-1])
    if subject in _SUBJECTS and (number := _number(parts[-1])):
        return Question(subject, number, 0)
    return None


def _number(text: str) -> int:
    """A number from 1 to 65,535 in its only spelling, or 0."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5) or text[0] == "0":
        return 0
    number = int(text)
    return number if number <= 0xFFFF else 0
