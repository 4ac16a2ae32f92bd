"""What holds without a decision: the default policy of a purpose or a workspace, with exceptions by region."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

GDPR: Final = "GDPR"
"""The region of ``GDPR_COUNTRIES`` as a whole."""

GDPR_COUNTRIES: Final = frozenset(re.findall("..", "ATBEBGCYCZDEDKEEESFIFRGBGRHRHUIEISITLILTLULVMTNLNOPLPTROSESISK"))
"""The European Economic Area and the United Kingdom, whose own GDPR says the same here."""


class DefaultPolicy(IntEnum):
    """What a purpose is without a decision of the person. The numbers are those of ``cdi.consent.v1.DefaultPolicy``."""

    UNSPECIFIED = 0
    REQUIRE = 1
    ALLOW = 2
    SEGMENT = 3


RegionalDefaults: TypeAlias = tuple[tuple[str, DefaultPolicy], ...]
"""Regions and what holds there, sorted. A region is "US-CA", "US" or "GDPR"."""


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """What holds in a workspace where its purposes say nothing of their own.

    Attributes:
        workspace_id: the workspace.
        default_policy: without a decision.
        regional_defaults: exceptions.
        version: 1 for the first, 0 before any was applied.
    """

    workspace_id: str
    default_policy: DefaultPolicy = DefaultPolicy.REQUIRE
    regional_defaults: RegionalDefaults = ()
    version: int = 0


def regional(defaults: RegionalDefaults, region: str) -> DefaultPolicy:
    """The exception that is closest to a region, UNSPECIFIED if there is none.

    Args:
        defaults: the exceptions.
        region: "DE" or "US-CA"; empty if unknown, which no exception is for.
    """
    if not region or not defaults:
        return DefaultPolicy.UNSPECIFIED
    by_region = dict(defaults)
    country = region.partition("-")[0]
    for candidate in (region, country, GDPR if country in GDPR_COUNTRIES else ""):
        if (found := by_region.get(candidate)) is not None:
            return found
    return DefaultPolicy.UNSPECIFIED
