"""The identity rules of a workspace: what may link, how many of each a person may have, and who gives way.

Limits and their windows are Segment's; the unique type is Snowplow's. Where events carry an identifier (``paths``) is the business of
enrichment: identity keeps that, and refuses what would lead nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

import re2

BLOCKED_VALUES: Final = frozenset(
    {"-1", "null", "anonymous", "undefined", "none", "None", "nil", "NULL", "NaN", "nan", "true", "false", "[object Object]"}
)
"""What programs send when they know nobody. The first three are Segment's defaults; each of the others has glued strangers together
in somebody's installation."""

DEFAULT_LIMIT: Final = 5
"""Identifiers of a type that a profile may have where nothing else is said."""

DEFAULT_LIMITS: Final[Mapping[str, int]] = {"user_id": 1}
"""Types with another default."""

DEFAULT_PRIORITIES: Final[Mapping[str, int]] = {"user_id": 1, "email": 2}
"""Types that are stronger than the alphabet says."""

MAX_MERGES: Final = 100
MAX_IDENTIFIERS: Final = 1_000

PATH_ROOTS: Final = ("traits", "properties", "context")
"""What a path begins with."""

MAX_PATHS: Final = 100
"""Of all types together: enrichment looks at no more."""

_DAY_US: Final = 86_400_000_000
_UNRANKED: Final = 1 << 32


class Window(IntEnum):
    """The time over which a limit counts; the numbers are those of the protocol."""

    EVER = 1
    WEEKLY = 2
    MONTHLY = 3
    ANNUALLY = 4


_WINDOW_US: Final[Mapping[Window, int]] = {Window.WEEKLY: 7 * _DAY_US, Window.MONTHLY: 30 * _DAY_US, Window.ANNUALLY: 365 * _DAY_US}


@dataclass(frozen=True, slots=True)
class TypeRule:
    """The rule for one type of identifier.

    Attributes:
        type: its name, in lower case.
        limit: identifiers of it that a profile may have within the window; 0 stands for the default.
        window: counted by when an identifier was added to the profile.
        priority: lower is stronger; 0 stands for the default.
        unique: a profile never has two of it, whenever they were added.
        paths: where events carry it beside the standard places.
        disabled: it never links.
    """

    type: str
    limit: int = 0
    window: Window = Window.EVER
    priority: int = 0
    unique: bool = False
    paths: Sequence[str] = ()
    disabled: bool = False


@dataclass(frozen=True)
class Rules:
    """The identity rules of a workspace; without arguments: the defaults.

    Attributes:
        types: one per type; types without one take the defaults.
        default_limit: the limit of a type without a rule, ``user_id`` excepted; at least 1, as all limits.
        blocked_values: values that never link, beside ``BLOCKED_VALUES`` and those of only ``0`` and ``-``.
        blocked_patterns: RE2 expressions of values that never link, matched against the whole value.
        max_merges: profiles that may become part of one profile.
        max_identifiers: identifiers that a profile may have in all.
        event_traits: names of the traits that events leave enrichment with.
        version: rises with every change; 0: nothing was ever applied.
    """

    types: Sequence[TypeRule] = ()
    default_limit: int = DEFAULT_LIMIT
    blocked_values: frozenset[str] = frozenset()
    blocked_patterns: Sequence[str] = ()
    max_merges: int = MAX_MERGES
    max_identifiers: int = MAX_IDENTIFIERS
    event_traits: Sequence[str] = ()
    version: int = 0

    @cached_property
    def blocked(self) -> frozenset[str]:
        """Every single value that never links."""
        return BLOCKED_VALUES | self.blocked_values

    @cached_property
    def disabled(self) -> frozenset[str]:
        """Types that never link."""
        return frozenset(rule.type for rule in self.types if rule.disabled)

    @cached_property
    def unique_type(self) -> str | None:
        """The type of which a profile never has two."""
        return next((rule.type for rule in self.types if rule.unique), None)

    @cached_property
    def special(self) -> bool:
        """Whether a value can be blocked by anything but ``blocked``."""
        return bool(self.disabled or self.blocked_patterns)

    def limit(self, kind: str) -> int:
        """Identifiers of a type that a profile may have within the type's window."""
        return self._limits.get(kind, self.default_limit)

    def windows(self, now_us: int) -> Mapping[str, int]:
        """From when on the identifiers of a type count, microseconds since 1970; types that count for ever are absent."""
        return {rule.type: now_us - _WINDOW_US[rule.window] for rule in self.types if rule.window in _WINDOW_US}

    def rank(self, kind: str) -> tuple[int, str]:
        """A sort key: the lower, the stronger the type."""
        return self._priorities.get(kind, _UNRANKED), kind

    def matches_pattern(self, value: str) -> bool:
        """Whether a pattern blocks the value. RE2 takes time linear in the value, whatever the pattern."""
        return any(pattern.fullmatch(value) is not None for pattern in self._patterns)

    @cached_property
    def _limits(self) -> Mapping[str, int]:
        return {**DEFAULT_LIMITS, **{rule.type: rule.limit for rule in self.types if rule.limit}}

    @cached_property
    def _priorities(self) -> Mapping[str, int]:
        return {**DEFAULT_PRIORITIES, **{rule.type: rule.priority for rule in self.types if rule.priority}}

    @cached_property
    def _patterns(self) -> Sequence[re2._Regexp]:
        return [compiled(pattern) for pattern in self.blocked_patterns]


DEFAULT_RULES: Final = Rules()


def compiled(pattern: str) -> re2._Regexp:
    """An RE2 expression.

    Raises:
        ValueError: it is none, or one of more than 1 MiB when compiled.
    """
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise ValueError("not an RE2 expression") from error


def problems(rules: Rules) -> Iterable[tuple[str, str]]:
    """What is wrong with rules that somebody wants to apply: pairs of a field path and a sentence."""
    names = [rule.type for rule in rules.types]
    yield from _problems_of_types(rules.types)
    if len(set(names)) != len(names):
        yield "identifiers", "a type has two rules"
    if sum(rule.unique for rule in rules.types) > 1:
        yield "identifiers", "at most one type is unique"
    if len(names) > 200:
        yield "identifiers", "at most 200 rules"
    if sum(len(rule.paths) for rule in rules.types) > MAX_PATHS:
        yield "identifiers", f"at most {MAX_PATHS} paths in all"
    if len(rules.blocked_values) > 1_000 or any(len(value) > 500 for value in rules.blocked_values):
        yield "blocked_values", "at most 1,000 values of 500 characters"
    if len(rules.blocked_patterns) > 50 or any(len(pattern) > 500 for pattern in rules.blocked_patterns):
        yield "blocked_patterns", "at most 50 patterns of 500 characters"
    else:
        for index, pattern in enumerate(rules.blocked_patterns):
            try:
                compiled(pattern)
            except ValueError as error:
                yield f"blocked_patterns[{index}]", str(error)
    if rules.max_merges > 1_000:
        yield "max_merges", "at most 1,000"
    if rules.max_identifiers > 10_000:
        yield "max_identifiers", "at most 10,000"
    if len(rules.event_traits) > 50 or any(not 0 < len(name) <= 200 for name in rules.event_traits):
        yield "event_traits", "at most 50 names of 1 to 200 characters"


def _problems_of_types(types: Sequence[TypeRule]) -> Iterable[tuple[str, str]]:
    for index, rule in enumerate(types):
        if not 0 < len(rule.type) <= 100 or "\0" in rule.type or rule.type != rule.type.lower():
            yield f"identifiers[{index}].type", "1 to 100 characters, in lower case"
        if rule.limit > 10_000:
            yield f"identifiers[{index}].limit", "at most 10,000"
        if len(rule.paths) > 20 or any(not 0 < len(path) <= 200 for path in rule.paths):
            yield f"identifiers[{index}].paths", "at most 20 paths of 1 to 200 characters"
        for place, path in enumerate(rule.paths):
            root, *names = path.split(".")
            if root not in PATH_ROOTS or not names or not all(names):
                yield f"identifiers[{index}].paths[{place}]", "a path is traits, properties or context and then names, such as traits.phone"
