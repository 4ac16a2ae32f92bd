"""What was decided, and why: one record per event or request that changed the graph or had identifiers left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cdi_identity.domain.identifiers import Identifier


class Kind(IntEnum):
    """What was done; the numbers are those of the protocol's ``DecisionKind``."""

    CREATED = 1
    EXTENDED = 2
    MERGED = 3
    MATCHED = 4
    SPLIT = 5
    UNLINKED = 6


class Reason(IntEnum):
    """Why an identifier was left out; the numbers are those of the protocol's ``DemotionReason``."""

    LIMIT = 1
    MAX_IDENTIFIERS = 2
    MAX_MERGES = 3
    UNIQUE = 4
    SEPARATED = 5


MERGE_REQUEST = "merge_profiles"
SPLIT_REQUEST = "split_profile"
"""What stands in place of an event's type when an operator caused a decision."""


class Cause(NamedTuple):
    """What led to a decision. A tuple, because one is made per event.

    Attributes:
        message_id: the event, or the id of the operator's request.
        event_type: "track", "identify", …, or ``MERGE_REQUEST``, ``SPLIT_REQUEST``.
    """

    message_id: str
    event_type: str = ""


@dataclass(frozen=True, slots=True)
class Demotion:
    """An identifier that was left out of an event.

    Attributes:
        identifier: the weakest one at that point.
        reason: the rule that would have been broken.
        limited_type: the type whose limit it was; empty for rules without one.
    """

    identifier: Identifier
    reason: Reason
    limited_type: str = ""


@dataclass(slots=True)
class Decision:
    """One decision of the graph.

    Attributes:
        kind: what was done.
        profile_id: the profile that came of it, canonical at that time.
        cause: what led to it.
        rules_version: of the rules that it was decided by.
        other_profile_ids: profiles that became part of it, or that left it.
        identifiers: those that were added, or that left it.
        demotions: what was left out, in that order.
        reason: an operator's.
        decide_us: when, microseconds since 1970; 0 until it is stored.
    """

    kind: Kind
    profile_id: str
    cause: Cause
    rules_version: int = 0
    other_profile_ids: Sequence[str] = ()
    identifiers: Sequence[Identifier] = ()
    demotions: Sequence[Demotion] = ()
    reason: str = ""
    decide_us: int = 0
