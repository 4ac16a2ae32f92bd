"""IAB GPP strings: the header, and of the sections the EU TCF, US Privacy, the United States national and per state.

Source: IAB Tech Lab, Global Privacy Platform, "Core/Consent String Specification", sections "Header Encoding" and "Fibonacci Encoding".
Deliberately absent: the Canadian TCF and signal integrity. Sections that are not read are named in ``skipped``.
"""

from __future__ import annotations

from typing import Final

from cdi_consent.domain.signals import tcf, us_privacy
from cdi_consent.domain.signals.bits import Bits, decoded
from cdi_consent.domain.signals.signal import Answers, Reading, SignalKind, Unreadable, merged
from cdi_consent.domain.signals.us_section import read_section
from cdi_consent.domain.signals.us_sections import SECTIONS

MAX_LENGTH: Final = 16 * 1024
"""Characters."""

_TYPE: Final = 3
_VERSION: Final = 1
_TCF_EU: Final = 2
_US_PRIVACY: Final = 6
_COUNT_BITS: Final = 12
_LONGEST_NUMBER: Final = 24


class GppReading(Reading, frozen=True, gc=False):
    """A GPP string, read.

    Attributes:
        tcf: its section EU TCF v2, which answers all keys of that standard.
    """

    tcf: Reading | None = None

    def answer(self, key: str) -> bool | None:
        """As ``Reading.answer``."""
        if self.tcf is not None and key.startswith("tcf."):
            return self.tcf.answer(key)
        return Reading.answer(self, key)


def read(text: str) -> GppReading:
    """Reads a GPP string. Between its sections the stricter answer counts.

    Raises:
        Unreadable: the header or one of the sections that are read is malformed: nothing of such a string is believed.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"longer than {MAX_LENGTH} characters")
    header, *sections = text.split("~")
    section_ids = read_header(decoded(header), len(sections))
    answers: list[tuple[str, bool]] = []
    versions: list[str] = []
    skipped: list[str] = []
    eu: Reading | None = None
    for section_id, section in zip(section_ids, sections, strict=True):
        try:
            if section_id == _TCF_EU:
                eu = tcf.read(section)
                answers += eu.answers
                versions.append(eu.version)
                skipped += eu.skipped
            elif (found := _read_us(section_id, section)) is None:
                skipped.append(f"gpp: section {section_id}, or this version of it, is not read")
            else:
                answers += found[0]
                versions.append(found[1])
        except Unreadable as error:
            raise Unreadable(f"section {section_id}: {error}") from None
    return GppReading(
        SignalKind.GPP,
        merged(answers),
        version=", ".join((f"gpp {_VERSION}", *versions)),
        raw=text,
        decide_us=eu.decide_us if eu is not None else None,
        skipped=tuple(skipped),
        tcf=eu,
    )


def _read_us(section_id: int, text: str) -> tuple[Answers, str] | None:
    """The answers of a section of the United States and its version, ``None`` if it is not read."""
    if section_id == _US_PRIVACY:
        reading = us_privacy.read(text)
        return reading.answers, reading.version
    if (section := SECTIONS.get(section_id)) is None or (found := read_section(section, text)) is None:
        return None
    return found[0], f"{section.name} {found[1]}"


def read_header(bits: Bits, sections: int) -> list[int]:
    """The ids of the sections in order: Type, Version, Range(Fibonacci).

    Args:
        bits: the header.
        sections: how many follow it.

    Raises:
        Unreadable: it is no header of version 1, or names another number of sections.
    """
    if bits.uint(0, 6) != _TYPE:
        raise Unreadable("no header of GPP")
    if (version := bits.uint(6, 6)) != _VERSION:
        raise Unreadable(f"version {version} is not read")
    count, at = bits.uint(12, _COUNT_BITS), 12 + _COUNT_BITS
    found: list[int] = []
    last = 0
    for _ in range(count):
        is_range, at = bits.uint(at, 1), at + 1
        offset, at = read_fibonacci(bits, at)
        first = last = last + offset
        if is_range:
            length, at = read_fibonacci(bits, at)
            last = first + length
        if len(found) + last - first >= sections:
            raise Unreadable(f"the header names more than the {sections} sections that follow")
        found += range(first, last + 1)
    if len(found) != sections:
        raise Unreadable(f"{sections} sections follow a header that names {len(found)}")
    return found


def read_fibonacci(bits: Bits, at: int) -> tuple[int, int]:
    """A number in Fibonacci coding: a bit per Fibonacci number from 1, 2, 3, 5 on, ended by a second 1 in a row.

    Returns:
        The number, and the place after it.

    Raises:
        Unreadable: it does not end.
    """
    number, previous = 0, 0
    worth, following = 1, 2
    for place in range(at, at + _LONGEST_NUMBER):
        bit = bits.uint(place, 1)
        if bit and previous:
            return number, place + 1
        number += worth if bit else 0
        worth, following = following, worth + following
        previous = bit
    raise Unreadable("a number of the header does not end")
