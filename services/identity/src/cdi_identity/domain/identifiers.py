"""Identifiers: which of them may link events, and which of them give way first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

import xxhash

from cdi_identity.domain.rules import DEFAULT_RULES, Rules

Identifier: TypeAlias = tuple[str, str, str]
"""Workspace id, type, value. A plain tuple, because one is made per identifier of every event."""

MAX_VALUE_LENGTH: Final = 500
"""Characters of a value, at most; a longer one is noise and would not fit the index."""

MAX_TYPE_LENGTH: Final = 100
"""Characters of a type, at most."""

MAX_PER_EVENT: Final = 50
"""Identifiers of one event that are looked at (contract of ``IdentityInput.identifiers``)."""

_FINGERPRINT_MASK: Final = (1 << 48) - 1
_COMMON_TYPES: Final = {kind: kind for kind in ("user_id", "anonymous_id", "email")}
"""One text for all identifiers of such a type: less memory to go through, and equal ones are found equal at once."""


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
    blocked, special = rules.blocked, rules.special
    found: list[Identifier] = []
    for named in brought:
        value, brought_kind = named.value, named.type
        common = _COMMON_TYPES.get(brought_kind)
        kind = common or brought_kind
        if (
            value.strip("0-")
            and value not in blocked
            and len(value) <= MAX_VALUE_LENGTH
            and "\0" not in value
            and (common or _is_name(kind))
            and not (special and (kind in rules.disabled or rules.matches_pattern(value)))
        ):
            found.append((workspace_id, kind, value))
    return tuple(found) if len(found) <= MAX_PER_EVENT else tuple(found[:MAX_PER_EVENT])


def _is_name(kind: str) -> bool:
    return 0 < len(kind) <= MAX_TYPE_LENGTH and "\0" not in kind


def by_priority(identifiers: Iterable[Identifier], rules: Rules) -> list[Identifier]:
    """Distinct identifiers, highest priority first; of one type, in the event's order."""
    return sorted(dict.fromkeys(identifiers), key=lambda identifier: rules.rank(identifier[1]))


def strongest(identifiers: Iterable[Identifier], rules: Rules) -> Identifier:
    """The identifier of the highest priority; of one type, the event's first. There is at least one."""
    return min(identifiers, key=lambda identifier: rules.rank(identifier[1]))


def fingerprint(identifier: Identifier) -> int:
    """48 bits that stand for an identifier where the whole of it would take too much space."""
    return xxhash.xxh3_64_intdigest(f"{identifier[1]}\0{identifier[2]}".encode()) & _FINGERPRINT_MASK
