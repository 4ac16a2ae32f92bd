"""Identifiers: which of them may link events, in which priority, and how many of each a profile may have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

Identifier: TypeAlias = tuple[str, str, str]
"""Workspace id, type, value. A plain tuple, because one is made per identifier of every event."""

MAX_VALUE_LENGTH: Final = 500
"""Characters of a value, at most; a longer one is noise and would not fit the index."""

MAX_TYPE_LENGTH: Final = 100
"""Characters of a type, at most."""

MAX_PER_EVENT: Final = 50
"""Identifiers of one event that are looked at (contract of ``IdentityInput.identifiers``)."""

BLOCKED_VALUES: Final = frozenset(
    {"-1", "null", "anonymous", "undefined", "none", "None", "nil", "NULL", "NaN", "nan", "true", "false", "[object Object]"}
)
"""What programs send when they know nobody. The first three are Segment's defaults; each of the others has glued strangers together
in somebody's installation."""


_COMMON_TYPES: Final = frozenset({"user_id", "anonymous_id", "email"})


@dataclass(frozen=True, slots=True)
class Rules:
    """The identity rules of a workspace. All windows are "ever".

    Attributes:
        limits: identifiers of a type that one profile may have.
        default_limit: the limit of every other type; at least 1, as all limits.
        leading: types of the highest priorities, highest first; the rest follow in alphabetical order.
        blocked: values that never link; those of only ``0`` and ``-`` (``^[0-]*$``, the empty one included) are always blocked.
        max_merges: profiles that may become part of one profile.
        max_identifiers: identifiers that one profile may have in all.
    """

    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"user_id": 1}))
    default_limit: int = 5
    leading: Sequence[str] = ("user_id", "email")
    blocked: frozenset[str] = BLOCKED_VALUES
    max_merges: int = 100
    max_identifiers: int = 1_000


DEFAULT_RULES: Final = Rules()


class Named(Protocol):
    """An identifier as an event brings it; the protocol's ``Identifier`` message is one."""

    @property
    def type(self) -> str: ...
    @property
    def value(self) -> str: ...


def usable(workspace_id: str, brought: Iterable[Named], rules: Rules = DEFAULT_RULES) -> tuple[Identifier, ...]:
    """The identifiers of an event that may link it, in the event's order.

    Args:
        workspace_id: the workspace of the event.
        brought: those with a NUL character or over a length are ignored like blocked ones.
        rules: the rules of the workspace.
    """
    blocked = rules.blocked
    found: list[Identifier] = []
    for named in brought:
        value, kind = named.value, named.type
        if (
            value.strip("0-")
            and value not in blocked
            and len(value) <= MAX_VALUE_LENGTH
            and "\0" not in value
            and (kind in _COMMON_TYPES or _is_name(kind))
        ):
            found.append((workspace_id, kind, value))
    return tuple(found) if len(found) <= MAX_PER_EVENT else tuple(found[:MAX_PER_EVENT])


def _is_name(kind: str) -> bool:
    return 0 < len(kind) <= MAX_TYPE_LENGTH and "\0" not in kind


def by_priority(identifiers: Iterable[Identifier], rules: Rules) -> list[Identifier]:
    """Distinct identifiers, highest priority first; of one type, in the event's order."""
    leading = list(rules.leading)
    ranks = {kind: rank for rank, kind in enumerate(leading)}
    return sorted(dict.fromkeys(identifiers), key=lambda identifier: (ranks.get(identifier[1], len(leading)), identifier[1]))
