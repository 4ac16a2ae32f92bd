"""The sections of GPP for the United States, as data: the fields of each core segment in order, two bits each after the version.

Source: IAB Tech Lab, Global Privacy Platform, "Sections/US-National" and "Sections/US-States". A field of which there are several is
written as ``name*count``. Fields that are not asked for an answer stand here for their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

Fields: TypeAlias = tuple[tuple[str, int], ...]
"""Names of fields, and how many values of two bits each has."""

VERSION_BITS: Final = 6
_MSPA: Final = "mspa_covered mspa_opt_out_mode mspa_service_provider_mode"
_MSPA_FIRST: Final = "mspa_covered mspa_mode notice sale_notice targeted_notice sale targeted"


@dataclass(frozen=True, slots=True)
class Section:
    """One section.

    Attributes:
        name: the prefix in GPP's client API, such as ``usca``.
        layouts: by the version that the section's first six bits name.
        gpc: it may have a segment with global privacy control.
        sensitive_segment: how many values a segment with the sensitive categories has; 0 where they are part of the core.
    """

    name: str
    layouts: dict[int, Fields]
    gpc: bool = True
    sensitive_segment: int = 0

    @property
    def place(self) -> str:
        """The two letters of the state, or ``nat``."""
        return self.name[2:]


def _fields(text: str) -> Fields:
    found = []
    for field in text.split():
        name, _, count = field.partition("*")
        found.append((name, int(count or 1)))
    return tuple(found)


def _first(name: str, sensitive: int, children: int, *, gpc: bool = True, before: str = "") -> Section:
    """A state of 2023, whose layout has no additional processing."""
    fields = f"notice sale_notice targeted_notice {before} sale targeted sensitive*{sensitive} child*{children} {_MSPA}"
    return Section(name, {1: _fields(fields)}, gpc)


def _later(name: str, sensitive: int, children: int, *, gpc: bool = True) -> Section:
    """A state of 2024 or later."""
    fields = f"notice sale_notice targeted_notice sale targeted sensitive*{sensitive} child*{children} additional {_MSPA}"
    return Section(name, {1: _fields(fields)}, gpc)


def _latest(name: str, rest: str, *, sensitive_segment: int = 8) -> Section:
    """A state of 2026, whose version is that of the MSPA."""
    return Section(name, {1: _fields(f"{_MSPA_FIRST} {rest}")}, gpc=not sensitive_segment, sensitive_segment=sensitive_segment)


def _national(sensitive: int, children: int) -> Fields:
    notices = "notice sale_notice sharing_notice targeted_notice sensitive_opt_out_notice sensitive_limit_notice"
    return _fields(f"{notices} sale sharing targeted sensitive*{sensitive} child*{children} personal {_MSPA}")


_CALIFORNIA: Final = "sale_notice sharing_notice sensitive_notice sale sharing sensitive*9 child*2 personal"

SECTIONS: Final = {
    7: Section("usnat", {1: _national(12, 2), 2: _national(16, 3)}),
    8: Section("usca", {1: _fields(f"{_CALIFORNIA} {_MSPA}")}),
    9: _first("usva", 8, 1, gpc=False),
    10: _first("usco", 7, 1),
    11: _first("usut", 8, 1, gpc=False, before="sensitive_notice"),
    12: _first("usct", 8, 3),
    13: _later("usfl", 8, 3, gpc=False),
    14: _later("usmt", 8, 3),
    15: _later("usor", 11, 3),
    16: _later("ustx", 8, 1),
    17: _later("usde", 9, 5),
    18: _first("usia", 8, 1, before="sensitive_notice"),
    19: _later("usne", 8, 1),
    20: _later("usnh", 8, 3),
    21: _later("usnj", 10, 5),
    22: _later("ustn", 8, 1),
    23: _later("usmn", 8, 1),
    24: _latest("usmd", "additional", sensitive_segment=0),
    25: _latest("usin", "child additional"),
    26: _latest("usky", "child additional"),
    27: _latest("usri", "child additional"),
}
"""By section id ("Sections/Section Information"). ``sensitive_notice`` stands where sensitive data is used until somebody opts out."""
