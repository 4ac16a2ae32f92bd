"""Computed traits: what the events of a person come to, by a definition.

Source of the aggregations: Segment's computed traits. What one event gives to a definition is decided here; how that is put together over
the events of a person is arithmetic that Postgres does on exact numbers (``store.computed_values``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from cdi_identity.domain import json_values
from cdi_identity.domain.json_values import MISSING

MAX_DEFINITIONS: Final = 100
"""Computed traits of one workspace."""

MAX_CONDITIONS: Final = 20
MAX_VALUES: Final = 1_000
"""Values of one condition, and names of events."""

MAX_PATH_LENGTH: Final = 200
MAX_NAME_LENGTH: Final = 200

MAX_TEXT: Final = 500
"""Characters of the JSON text of a value; an event whose value is longer gives nothing."""

MAX_DIGITS: Final = 60
"""Digits of a number that is calculated with, before and after the point together; an event with a longer one gives nothing."""

MAX_WINDOW_US: Final = 10 * 366 * 86_400 * 1_000_000
MIN_WINDOW_US: Final = 1_000_000

ROOTS: Final = ("properties", "traits", "context")
"""What a path begins with: the parts of an event that are the client's JSON."""


class Aggregation(IntEnum):
    """How values are put together; the numbers are those of the protocol."""

    EVENT_COUNTER = 1
    SUM = 2
    AVERAGE = 3
    MIN = 4
    MAX = 5
    MOST_FREQUENT = 6
    FIRST = 7
    LAST = 8
    UNIQUE_LIST = 9
    UNIQUE_COUNT = 10

    @property
    def numeric(self) -> bool:
        """Whether only numbers count."""
        return Aggregation.SUM <= self <= Aggregation.MAX


class Operator(IntEnum):
    """How a value is compared; the numbers are those of the protocol's ``ConditionOperator``."""

    IN = 1
    NOT_IN = 2
    LESS = 3
    GREATER = 4
    CONTAINS = 5
    EXISTS = 6


@dataclass(frozen=True, slots=True)
class Condition:
    """What an event has to fulfil.

    Attributes:
        path: below the event.
        operator: how the value there is compared.
        values: decoded JSON; one of them is enough for ``IN``, ``LESS``, ``GREATER`` and ``CONTAINS`` have one.
    """

    path: str
    operator: Operator
    values: Sequence[Any] = ()

    def holds(self, found: Any) -> bool:
        """Whether it holds for what is at its path."""
        match self.operator:
            case Operator.IN:
                return found is not MISSING and any(json_values.same(found, value) for value in self.values)
            case Operator.NOT_IN:
                return found is MISSING or not any(json_values.same(found, value) for value in self.values)
            case Operator.LESS:
                return json_values.is_number(found) and bool(found < self.values[0])
            case Operator.GREATER:
                return json_values.is_number(found) and bool(found > self.values[0])
            case Operator.CONTAINS:
                return isinstance(found, str) and self.values[0] in found
            case Operator.EXISTS:
                return found is not MISSING and found is not None


@dataclass(frozen=True, slots=True)
class ComputedTrait:
    """A definition.

    Attributes:
        workspace_id: its workspace.
        name: of the trait.
        aggregation: how values are put together.
        event_type: "track", "page", "screen", "identify" or "group".
        event_names: of the events; none: all of the type.
        path: of the value below the event; empty for the event counter.
        conditions: all of them have to hold.
        window_us: only events of so long ago at most, microseconds; 0: of all time.
        version: rises with every change; 0: not stored yet.
    """

    workspace_id: str
    name: str
    aggregation: Aggregation
    event_type: str
    event_names: Sequence[str] = ()
    path: str = ""
    conditions: Sequence[Condition] = ()
    window_us: int = 0
    version: int = 0

    @property
    def paths(self) -> Sequence[str]:
        """Every path that it looks at, each once."""
        return list(dict.fromkeys(path for path in (self.path, *(condition.path for condition in self.conditions)) if path))

    def given(self, look: Callable[[str], Any]) -> str | None:
        """What an event of its type and names gives to it.

        Args:
            look: the decoded value at a path below the event, ``MISSING`` where there is none.

        Returns:
            The JSON text of the value (``json_values.text``), empty for the event counter; ``None``: the event gives nothing.
        """
        if not all(condition.holds(look(condition.path)) for condition in self.conditions):
            return None
        if self.aggregation is Aggregation.EVENT_COUNTER:
            return ""
        value = look(self.path)
        if value is MISSING or value is None or (self.aggregation.numeric and not json_values.is_number(value)):
            return None
        written = json_values.text(value)
        if written is None or len(written) > (MAX_DIGITS if self.aggregation.numeric else MAX_TEXT):
            return None
        return written


@dataclass(frozen=True, slots=True)
class Definition:
    """A stored definition.

    Attributes:
        trait_id: another one for every version, so that what was counted by one version never mixes with the next.
        trait: the definition.
    """

    trait_id: int
    trait: ComputedTrait


class Definitions:
    """All definitions of the installation, by what has to be known of an event to find those that it may give to."""

    def __init__(self, definitions: Iterable[Definition] = ()) -> None:
        self._by_event: dict[tuple[str, str, str | None], list[Definition]] = {}
        self.ids: tuple[int, ...] = ()
        for definition in definitions:
            self.ids += (definition.trait_id,)
            trait = definition.trait
            for name in trait.event_names or (None,):
                self._by_event.setdefault((trait.workspace_id, trait.event_type, name), []).append(definition)
        self._types = frozenset((workspace_id, event_type) for workspace_id, event_type, _ in self._by_event)

    def of(self, workspace_id: str, event_type: str, name: str) -> Sequence[Definition]:
        """The definitions that look at events of a type and name."""
        if (workspace_id, event_type) not in self._types:
            return ()
        named = self._by_event.get((workspace_id, event_type, name), ())
        return (*named, *self._by_event.get((workspace_id, event_type, None), ()))


def problems(trait: ComputedTrait) -> Iterable[tuple[str, str]]:
    """What is wrong with a definition that somebody wants to apply: pairs of a field path and a sentence."""
    for field, text in (("workspace_id", trait.workspace_id), ("name", trait.name)):
        if not 0 < len(text) <= MAX_NAME_LENGTH or "\0" in text:
            yield field, f"1 to {MAX_NAME_LENGTH} characters"
    if trait.event_type not in ("track", "page", "screen", "identify", "group"):
        yield "event_type", 'one of "track", "page", "screen", "identify", "group"'
    elif trait.event_names and trait.event_type in ("identify", "group"):
        yield "event_names", "events of this type have no name"
    if len(trait.event_names) > MAX_VALUES or len(set(trait.event_names)) < len(trait.event_names) or not all(trait.event_names):
        yield "event_names", f"at most {MAX_VALUES} different names"
    if trait.aggregation is Aggregation.EVENT_COUNTER:
        if trait.path:
            yield "path", "the event counter has none"
    elif (wrong := _wrong_path(trait.path)) is not None:
        yield "path", wrong
    if trait.window_us and not MIN_WINDOW_US <= trait.window_us <= MAX_WINDOW_US:
        yield "window", "from a second to ten years"
    if len(trait.conditions) > MAX_CONDITIONS:
        yield "conditions", f"at most {MAX_CONDITIONS}"
    for index, condition in enumerate(trait.conditions):
        yield from ((f"conditions[{index}].{field}", text) for field, text in _wrong_condition(condition))


def _wrong_path(path: str) -> str | None:
    root, *keys = path.split(".")
    if len(path) > MAX_PATH_LENGTH or root not in ROOTS or not keys or not all(keys):
        return f"a name below one of {', '.join(ROOTS)}, for example properties.total, of at most {MAX_PATH_LENGTH} characters"
    return None


def _wrong_condition(condition: Condition) -> Iterable[tuple[str, str]]:
    if (wrong := _wrong_path(condition.path)) is not None:
        yield "path", wrong
    values = condition.values
    if any(value is MISSING or json_values.text(value) is None for value in values):
        yield "values", 'JSON values; a text stands in quotes: "gold"'
        return
    match condition.operator:
        case Operator.EXISTS:
            if values:
                yield "values", "none for this operator"
        case Operator.IN | Operator.NOT_IN:
            if not 0 < len(values) <= MAX_VALUES:
                yield "values", f"1 to {MAX_VALUES} for this operator"
        case Operator.LESS | Operator.GREATER:
            if len(values) != 1 or not json_values.is_number(values[0]):
                yield "values", "one number for this operator"
        case Operator.CONTAINS:
            if len(values) != 1 or not isinstance(values[0], str):
                yield "values", "one text for this operator"
