"""Clean rooms: documents, queries, sensitivity, release, the noise of the library, and attacks on it."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_kernel.faults import FailedPrecondition, InvalidArgument, RateLimited
from cdi_warehouse_loader.domain.aggregates import (
    Aggregate,
    AggregateQuery,
    Boolean,
    Condition,
    Function,
    Kind,
    Measure,
    Numbers,
    Plan,
    Texts,
    Times,
    plan,
)
from cdi_warehouse_loader.domain.clean_room import DAY_US, MICRO, CleanRoom, Key, Number, Partner, Table, succeed
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.ledger import Budget, check_budget
from cdi_warehouse_loader.domain.release import SMALL_GROUP_CHANCE, Noised, release, vector
from cdi_warehouse_loader.noise import OpenDpNoise
from cdi_warehouse_loader.warehouses.duckdb.aggregates import statement_of

HASH = "a" * 64
TABLE = Table(
    "orders",
    (Key("country", ("DE", "FR")), Key("vip", ("true", "false"))),
    (Number("total", -5, 100, 0.5),),
    ("shop", "timestamp", "size", "gift"),
    max_groups=2,
    max_rows=3,
)
ROOM = CleanRoom("acme", "retail", "main", ("ads",), (TABLE,), 10, 30, (Partner("p", (HASH,), MICRO),))
COLUMNS = {
    "event_seq": ColumnType.BIGINT,
    "consent_purposes": ColumnType.TEXT,
    "country": ColumnType.TEXT,
    "vip": ColumnType.BOOLEAN,
    "total": ColumnType.DOUBLE,
    "shop": ColumnType.TEXT,
    "timestamp": ColumnType.TIMESTAMP,
    "size": ColumnType.BIGINT,
    "gift": ColumnType.BOOLEAN,
}
QUERY = AggregateQuery("orders", (Aggregate(Function.PEOPLE), Aggregate(Function.AVERAGE, "total")), ("country",), (), MICRO)


def planned(query: AggregateQuery = QUERY, room: CleanRoom = ROOM) -> Plan:
    return plan(query, room, lambda table: COLUMNS if table == "orders" else {})


def fields_of(refused: pytest.ExceptionInfo[InvalidArgument]) -> set[str]:
    return {field for field, _ in refused.value.field_violations}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"workspace_id": ""}, "workspace_id"),
        ({"name": "Retail"}, "name"),
        ({"schema": "_cdi"}, "schema"),
        ({"schema": 'a"b'}, "schema"),
        ({"purposes": ()}, "purposes"),
        ({"minimum_group_size": 1}, "minimum_group_size"),
        ({"period_days": 0}, "period_days"),
        ({"tables": ()}, "tables"),
        ({"tables": (TABLE, TABLE)}, "tables"),
        ({"tables": (replace(TABLE, name="users"),)}, "tables[0].name"),
        ({"tables": (replace(TABLE, name="events_by_person"),)}, "tables[0].name"),
        ({"tables": (replace(TABLE, filters=("country",)),)}, "tables[0].columns"),
        ({"tables": (replace(TABLE, filters=("user_id",)),)}, "tables[0].columns"),
        ({"tables": (replace(TABLE, max_groups=0),)}, "tables[0].max_groups_per_person"),
        ({"tables": (replace(TABLE, max_rows=1_001),)}, "tables[0].max_rows_per_person"),
        ({"tables": (replace(TABLE, keys=(Key("country", ()),)),)}, "tables[0].keys[0].values"),
        ({"tables": (replace(TABLE, numbers=(Number("total", 0, math.inf, 1),)),)}, "tables[0].numbers[0].lower"),
        ({"tables": (replace(TABLE, numbers=(Number("total", 0, 1, -1),)),)}, "tables[0].numbers[0].step"),
        ({"tables": (replace(TABLE, numbers=(Number("total", 0, 1e30, 1),)),)}, "tables[0].numbers[0].step"),
        ({"tables": (replace(TABLE, numbers=(Number("total", 1, 1, 1),)),)}, "tables[0].numbers[0].upper"),
        ({"partners": ()}, "partners"),
        ({"partners": (Partner("p", (HASH,), 1), Partner("q", (HASH,), 1))}, "partners"),
        ({"partners": (Partner("p", ("secret",), 1),)}, "partners[0].token_hashes"),
        ({"partners": (Partner("p", (HASH,), 0),)}, "partners[0].epsilon"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused(change: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        succeed(replace(ROOM, **change), None)
    assert f"clean_room.{field}" in fields_of(refused)


def test_versions_rise_with_changes_only() -> None:
    first = succeed(ROOM, None)
    assert first.version == 1
    assert succeed(ROOM, first) is first
    assert succeed(replace(ROOM, minimum_group_size=11), first).version == 2


@given(st.integers(1, 366), st.integers(0, 4_000_000_000_000_000))
def test_periods_follow_each_other_without_a_gap(days: int, now_us: int) -> None:
    start, end = replace(ROOM, period_days=days).period(now_us)
    assert start <= now_us < end == start + days * DAY_US
    assert replace(ROOM, period_days=days).period(end)[0] == end


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"table": "tracks"}, "table"),
        ({"aggregates": ()}, "aggregates"),
        ({"aggregates": (Aggregate(Function.SUM, "size"),)}, "aggregates[0].column"),
        ({"aggregates": (Aggregate(Function.COUNT, "total"),)}, "aggregates[0].column"),
        ({"group_by": ("shop",)}, "group_by"),
        ({"group_by": ("country", "country")}, "group_by"),
        ({"conditions": (Condition("total", Numbers(1, None)),)}, "conditions[0].column"),
        ({"conditions": (Condition("user_id", Texts(("ada",))),)}, "conditions[0].column"),
        ({"conditions": (Condition("size", Numbers(None, math.nan)),)}, "conditions[0]"),
        ({"conditions": (Condition("shop", Texts(())),)}, "conditions[0]"),
        ({"conditions": (Condition("shop", Texts(("x" * 1_001,))),)}, "conditions[0]"),
        ({"conditions": (Condition("gift", Boolean(True)),) * 21}, "conditions"),
        ({"conditions": (Condition("shop", Texts(tuple(f"{n:<900}" for n in range(10)))),)}, "conditions"),
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": 11 * MICRO}, "epsilon"),
    ],
)
def test_a_query_for_what_is_not_declared_is_refused(change: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        planned(replace(QUERY, **change))
    assert field in fields_of(refused)


def test_a_table_that_is_no_table_of_events_is_not_there() -> None:
    for columns in (
        {},
        {name: kind for name, kind in COLUMNS.items() if name != "consent_purposes"},
        {**COLUMNS, "total": ColumnType.TEXT},
    ):
        with pytest.raises(FailedPrecondition):
            plan(QUERY, ROOM, lambda _, columns=columns: columns)  # type: ignore[misc]


def test_too_many_groups_are_refused() -> None:
    many = tuple(str(number) for number in range(40))
    room = replace(ROOM, tables=(replace(TABLE, keys=(Key("country", many), Key("vip", many))),))
    with pytest.raises(InvalidArgument):
        planned(replace(QUERY, group_by=("country", "vip")), room)


def test_epsilon_is_shared_by_what_is_measured_and_sensitivity_by_what_a_person_may_add() -> None:
    made = planned()
    assert made.measures == (Measure(Kind.PEOPLE), Measure(Kind.SUM, "total"), Measure(Kind.PRESENT, "total"))
    assert made.share == pytest.approx(1 / 3)
    assert [made.sensitivity(measure) for measure in made.measures] == [2, 2 * 3 * 200, 2 * 3]
    alone = planned(replace(QUERY, group_by=()))
    assert [alone.sensitivity(measure) for measure in alone.measures] == [1, 3 * 200, 3]


def test_the_same_query_in_another_order_is_the_same() -> None:
    one, two = Condition("shop", Texts(("b", "a", "b"))), Condition("size", Numbers(1.0, None))
    other = Condition("shop", Texts(("a", "b")))
    assert replace(QUERY, conditions=(one, two)).text == replace(QUERY, conditions=(two, other, two)).text
    for different in (Condition("size", Numbers(None, 1.0)), Condition("timestamp", Times(1, None)), Condition("gift", Boolean(True))):
        assert replace(QUERY, conditions=(different,)).text != replace(QUERY, conditions=(two,)).text
    assert replace(QUERY, epsilon=1).text != QUERY.text


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5), st.text(min_size=1, max_size=20))
def test_no_text_of_a_partner_or_a_key_is_in_the_statement(texts: list[str], key: str) -> None:
    marked = tuple(f"<{text}>" for text in texts)
    room = replace(ROOM, purposes=(f"<{key}>",), tables=(replace(TABLE, keys=(Key("country", (f"<{key}>",)),)),))
    text, parameters = statement_of(planned(replace(QUERY, conditions=(Condition("shop", Texts(marked)),)), room))
    assert not any(each in text for each in (*marked, f"<{key}>"))
    assert list(marked) in parameters


def noised(made: Plan, people: list[int], margin: float = 5.0) -> dict[Measure, Noised]:
    return {
        measure: Noised(people if measure.kind is Kind.PEOPLE else [value * 7 for value in people[:-1]], margin, 1.5)
        for measure in made.measures
    }


def test_only_groups_that_reach_the_minimum_beyond_the_noise_are_shown() -> None:
    made = planned()
    answer = release(made, QUERY.aggregates, 10, noised(made, [15, 14, 0]))
    assert [group.keys for group in answer.groups] == [("DE",)]
    assert answer.suppressed == 1
    assert [tuple(value) for value in answer.groups[0].values] == [(15.0, 1.5), (0.5, 0.0)]


def test_a_query_that_leaves_out_too_few_is_refused() -> None:
    filtered = planned(replace(QUERY, conditions=(Condition("gift", Boolean(True)),)))
    assert release(filtered, QUERY.aggregates, 10, noised(filtered, [100, 100, 14])).too_few_outside
    assert not release(filtered, QUERY.aggregates, 10, noised(filtered, [100, 100, 15])).too_few_outside


@given(st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=3))
def test_averages_stay_within_their_bounds(people: list[int]) -> None:
    made = planned()
    for group in release(made, QUERY.aggregates, 10, noised(made, people)).groups:
        assert -5 <= group.values[1].value <= 100


def test_a_budget_is_paid_to_the_last_millionth_and_not_beyond() -> None:
    budget = Budget("p", MICRO, MICRO - 5, 0, DAY_US)
    check_budget(budget, 5, 0)
    with pytest.raises(RateLimited) as refused:
        check_budget(budget, 6, DAY_US - 3_000_000)
    assert refused.value.retry_after == 3.0
    assert Budget("p", 1, 5, 0, DAY_US).left == 0


SAMPLES = 20_000
HALF_WIDTH = math.sqrt(math.log(2 * 20 / 1e-10) / (2 * SAMPLES))
"""By Hoeffding: one of twenty frequencies is further off than this with a chance below 1e-10."""


@pytest.mark.parametrize(("sensitivity", "epsilon"), [(1, 0.5), (3, 1.0), (4, 2.0)])
def test_noise_is_discrete_laplace_of_the_scale_that_was_paid_for(sensitivity: int, epsilon: float) -> None:
    found = OpenDpNoise().laplace([7] * SAMPLES, sensitivity, epsilon)
    counts = Counter(value - 7 for value in found.values)
    ratio = math.exp(-epsilon / sensitivity)
    for value in range(-9, 10):
        expected = (1 - ratio) / (1 + ratio) * ratio ** abs(value)
        assert abs(counts[value] / SAMPLES - expected) < HALF_WIDTH
    tail = 2 * ratio ** math.ceil(found.margin) / (1 + ratio)
    assert tail <= 2 * SMALL_GROUP_CHANCE * 1.001
    assert found.accuracy < found.margin


def test_a_group_below_the_minimum_is_not_lifted_by_noise() -> None:
    noise, made = OpenDpNoise(), planned()
    for _ in range(50):
        measured = {
            measure: noise.laplace(
                vector(made, measure, {("DE",): [9, 9, 9], ("FR",): [9, 9, 9]}, 0), made.sensitivity(measure), made.share
            )
            for measure in made.measures
        }
        assert release(made, QUERY.aggregates, 10, measured).groups == ()


def test_who_spends_the_whole_budget_on_averaging_still_has_to_guess() -> None:
    """Whether a set has 100 or 101 people, from ten answers that share an epsilon of 0.5: right at most e^0.5 / (1 + e^0.5) = 62 % of it.

    With 2,000 guesses the share of right ones is above 71 % with a chance below 1e-10 (Hoeffding).
    """
    noise, guesses, answers, epsilon = OpenDpNoise(), 2_000, 10, 0.5
    right = 0
    for person in (0, 1):
        values = noise.laplace([100 + person] * (guesses // 2 * answers), 1, epsilon / answers).values
        for start in range(0, len(values), answers):
            average = sum(values[start : start + answers]) / answers
            right += (average > 100.5) == bool(person)
    allowed = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right / guesses < allowed + math.sqrt(math.log(1e10) / (2 * guesses))
