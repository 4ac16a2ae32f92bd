"""Queries of clean rooms: what may be asked, what one person can change of the answer, and the plan for the warehouse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Final, NamedTuple

import msgspec

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition, InvalidArgument
from cdi_warehouse_loader.domain.clean_room import MAX_EPSILON, MAX_GROUPS, MICRO, CleanRoom, Key, Number, Table
from cdi_warehouse_loader.domain.columns import ColumnType

MAX_AGGREGATES: Final = 10
MAX_CONDITIONS: Final = 20
MAX_TEXTS: Final = 100
MAX_TEXT: Final = 1_000
MAX_QUERY_BYTES: Final = 8_192
"""Of a query as JSON: a page of the log with a thousand of them is below the limit of an answer."""

MIN_EPSILON: Final = MICRO // 1_000

_NUMBERS: Final = frozenset({ColumnType.BIGINT, ColumnType.INTEGER, ColumnType.DOUBLE})
_KEYS: Final = frozenset({ColumnType.TEXT, ColumnType.BOOLEAN, ColumnType.BIGINT, ColumnType.INTEGER})


class Function(StrEnum):
    """What is computed of each group."""

    COUNT = "count"
    PEOPLE = "people"
    SUM = "sum"
    AVERAGE = "average"


class Aggregate(NamedTuple):
    """One aggregate; the column is empty for counts."""

    function: Function
    column: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Texts:
    """The column is one of these."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Boolean:
    """The column is this."""

    boolean: bool


@dataclass(frozen=True, slots=True, order=True)
class Numbers:
    """The column is in this range; an end that is ``None`` is open."""

    at_least: float | None
    below: float | None


@dataclass(frozen=True, slots=True, order=True)
class Times:
    """The column is in this range of microseconds since 1970; an end that is ``None`` is open."""

    at_least_us: int | None
    below_us: int | None


Test = Texts | Boolean | Numbers | Times


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of a column; NULL fulfils none."""

    column: str
    test: Test


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """What a partner asks; ``epsilon`` in millionths."""

    table: str
    aggregates: tuple[Aggregate, ...]
    group_by: tuple[str, ...]
    conditions: tuple[Condition, ...]
    epsilon: int

    @property
    def text(self) -> str:
        """The query as JSON: two queries are the same when this is, whatever the order of conditions and texts."""
        conditions = sorted({msgspec.json.encode(_ordered(condition)).decode() for condition in self.conditions})
        return msgspec.json.encode(
            {
                "table": self.table,
                "aggregates": self.aggregates,
                "groupBy": self.group_by,
                "conditions": [msgspec.Raw(each.encode()) for each in conditions],
                "epsilon": self.epsilon / MICRO,
            }
        ).decode()


class Kind(StrEnum):
    """What the warehouse counts; an average is a sum and the number of rows that have the value."""

    PEOPLE = "people"
    ROWS = "rows"
    SUM = "sum"
    PRESENT = "present"


class Measure(NamedTuple):
    """One number per group, before noise. Sums are in steps of their column."""

    kind: Kind
    column: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A query that was checked, in words of the document.

    Attributes:
        workspace_id: whose rows.
        schema: of the table.
        purposes: that a row must grant.
        table: as declared.
        keys: to group by, with their values.
        numbers: that are summed, by column.
        conditions: that have to hold.
        measures: what is counted; people first.
        epsilon: for all of it, in millionths.
    """

    workspace_id: str
    schema: str
    purposes: tuple[str, ...]
    table: Table
    keys: tuple[Key, ...]
    numbers: Mapping[str, Number]
    conditions: tuple[Condition, ...]
    measures: tuple[Measure, ...]
    epsilon: int

    @property
    def groups(self) -> Iterator[tuple[str, ...]]:
        """All groups that there can be, in the order of the document; a single one of no keys when nothing is grouped."""
        return product(*(key.values for key in self.keys))

    @property
    def group_count(self) -> int:
        """How many ``groups`` there are."""
        return math.prod(len(key.values) for key in self.keys)

    @property
    def share(self) -> float:
        """The epsilon of each measure: they add up to that of the query (sequential composition)."""
        return self.epsilon / MICRO / len(self.measures)

    def sensitivity(self, measure: Measure) -> int:
        """How much one person can change a measure over all groups together (L1), by being there or not.

        The warehouse takes at most ``max_rows`` rows of a person in each of at most ``max_groups`` groups. A person outside of the
        conditions is counted once, in place of all groups.
        """
        groups, rows = min(self.table.max_groups, self.group_count), self.table.max_rows
        if measure.kind is Kind.PEOPLE:
            return groups
        if measure.kind is Kind.SUM:
            low, high = self.numbers[measure.column].steps
            return groups * rows * max(abs(low), abs(high), 1)
        return groups * rows


def plan(query: AggregateQuery, room: CleanRoom, columns: Callable[[str], Mapping[str, ColumnType]]) -> Plan:
    """What a query asks of the warehouse.

    Args:
        query: as asked.
        room: the document.
        columns: columns of a table of the room's schema; empty: there is no such table.

    Raises:
        InvalidArgument: it names what the document does not declare, or breaks another rule.
        FailedPrecondition: the table or a column is not there yet, or has another type.
    """
    table = next((table for table in room.tables if table.name == query.table), None)
    if table is None:
        raise InvalidArgument("the clean room has no such table", field_violations=[("table", "is not declared")])
    keys, numbers = {key.column: key for key in table.keys}, {number.column: number for number in table.numbers}
    violations = list(_violations(query, keys, numbers, {*keys, *table.filters}))
    if violations:
        raise InvalidArgument("the query asks for what it may not", field_violations=violations)
    grouped = tuple(keys[column] for column in query.group_by)
    summed = {aggregate.column: numbers[aggregate.column] for aggregate in query.aggregates if aggregate.column}
    _check_types(query, columns(query.table), summed)
    made = Plan(room.workspace_id, room.schema, room.purposes, table, grouped, summed, query.conditions, _measures(query), query.epsilon)
    if made.group_count > MAX_GROUPS:
        raise InvalidArgument("the query has too many groups", field_violations=[("group_by", f"at most {MAX_GROUPS:,} groups")])
    return made


def _measures(query: AggregateQuery) -> tuple[Measure, ...]:
    needed = [Measure(Kind.PEOPLE)]
    for function, column in query.aggregates:
        if function is Function.COUNT:
            needed.append(Measure(Kind.ROWS))
        if function in {Function.SUM, Function.AVERAGE}:
            needed.append(Measure(Kind.SUM, column))
        if function is Function.AVERAGE:
            needed.append(Measure(Kind.PRESENT, column))
    return tuple(dict.fromkeys(needed))


def _violations(
    query: AggregateQuery, keys: Mapping[str, Key], numbers: Mapping[str, Number], filters: set[str]
) -> Iterator[tuple[str, str]]:
    if not 1 <= len(query.aggregates) <= MAX_AGGREGATES:
        yield "aggregates", f"from 1 to {MAX_AGGREGATES}"
    for index, (function, column) in enumerate(query.aggregates):
        counts = function in {Function.COUNT, Function.PEOPLE}
        if column if counts else column not in numbers:
            yield f"aggregates[{index}].column", "counts have none" if counts else "is not declared as a number"
    if len(set(query.group_by)) < len(query.group_by) or not keys.keys() >= set(query.group_by):
        yield "group_by", "declared keys, each once"
    if len(query.conditions) > MAX_CONDITIONS or len(query.text.encode()) > MAX_QUERY_BYTES:
        yield "conditions", f"at most {MAX_CONDITIONS}, and {MAX_QUERY_BYTES:,} bytes as JSON"
    for index, condition in enumerate(query.conditions):
        if condition.column not in filters:
            yield f"conditions[{index}].column", "is not declared as a key or filter"
        if text := _wrong_test(condition.test):
            yield f"conditions[{index}]", text
    if not MIN_EPSILON <= query.epsilon <= MAX_EPSILON:
        yield "epsilon", "from 0.001 to 10"


def _wrong_test(test: Test) -> str:
    match test:
        case Texts(texts):
            return (
                ""
                if 1 <= len(texts) <= MAX_TEXTS and max(map(len, texts)) <= MAX_TEXT
                else "one to a hundred texts, at most 1,000 characters"
            )
        case Numbers(low, high):
            ends = [end for end in (low, high) if end is not None]
            return "" if ends and all(map(math.isfinite, ends)) else "at least one end, a finite number"
        case Times(None, None):
            return "at least one end"
        case _:
            return ""


def _check_types(query: AggregateQuery, columns: Mapping[str, ColumnType], numbers: Mapping[str, Number]) -> None:
    """Whether the table is one of events and each column has a type that fits its use."""
    wanted: dict[str, frozenset[ColumnType]] = {
        "event_seq": frozenset({ColumnType.BIGINT}),
        "consent_purposes": frozenset({ColumnType.TEXT}),
    }
    wanted |= dict.fromkeys(query.group_by, _KEYS) | dict.fromkeys(numbers, _NUMBERS)
    if any(columns.get(column) not in kinds for column, kinds in wanted.items()):
        raise _not_there(query.table)
    if any(columns.get(condition.column) not in _TESTED[type(condition.test)] for condition in query.conditions):
        raise _not_there(query.table)


_TESTED: Final[Mapping[type[Test], frozenset[ColumnType]]] = {
    Texts: frozenset({ColumnType.TEXT}),
    Boolean: frozenset({ColumnType.BOOLEAN}),
    Numbers: _NUMBERS,
    Times: frozenset({ColumnType.TIMESTAMP}),
}


def _not_there(table: str) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.ERROR_REASON_NOT_FOUND,
        "the table is not there yet, or lacks a column of the type that the query needs",
        metadata={"resource": "table", "name": table},
    )


def _ordered(condition: Condition) -> Condition:
    if isinstance(condition.test, Texts):
        return Condition(condition.column, Texts(tuple(sorted(set(condition.test.texts)))))
    return condition
