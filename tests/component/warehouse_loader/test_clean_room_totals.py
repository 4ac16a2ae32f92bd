"""Totals before noise, on a real DuckDB: what one person changes is never more than the plan says."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_warehouse_loader.domain.aggregates import Aggregate, AggregateQuery, Condition, Function, Numbers, Plan, plan
from cdi_warehouse_loader.domain.clean_room import CleanRoom, Key, Number, Table
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.release import vector
from cdi_warehouse_loader.ports import QueryLimits, Totals
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse, open_warehouse

LIMITS = QueryLimits(1_000, 1 << 20, 20.0)
COLUMNS = {
    "event_seq": ColumnType.BIGINT,
    "consent_purposes": ColumnType.TEXT,
    "ua_browser": ColumnType.TEXT,
    "geo_country": ColumnType.TEXT,
    "partition": ColumnType.INTEGER,
}
BROWSERS, COUNTRIES = ("b1", "b2", "b3"), ("c1", "c2")
QUERY = AggregateQuery(
    "tracks",
    tuple(Aggregate(*each) for each in ((Function.PEOPLE,), (Function.COUNT,), (Function.AVERAGE, "partition"))),
    ("ua_browser", "geo_country"),
    (),
    1_000_000,
)
OUTSIDE = (Condition("partition", Numbers(-50.0, 60.0)),)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDbWarehouse]:
    opened = open_warehouse(Options(f"duckdb:{tmp_path_factory.mktemp('totals')}/warehouse.duckdb"))
    opened.ensure_tables("main")
    yield opened
    opened.close()


def planned(max_groups: int, max_rows: int, number: Number, conditions: tuple[Condition, ...] = ()) -> Plan:
    table = Table("tracks", (Key("ua_browser", BROWSERS), Key("geo_country", COUNTRIES)), (number,), (), max_groups, max_rows)
    room = CleanRoom("acme", "retail", "main", ("ads",), (table,), 10, 30, ())
    made = plan(QUERY, room, lambda _: COLUMNS)
    return Plan(*(conditions if name == "conditions" else getattr(made, name) for name in Plan.__slots__))


Row = tuple[str, str | None, str | None, int | None, str]
"""Person, browser, country, number, consent."""


def totals(warehouse: DuckDbWarehouse, made: Plan, rows: Sequence[Row]) -> Totals:
    connection = warehouse._loading
    connection.execute("delete from tracks")
    for index, (person, browser, country, number, consent) in enumerate(rows):
        connection.execute(
            """insert into tracks by name select $1 as id, 'acme' as workspace_id, $2 as profile_id, $3 as ua_browser,
            $4 as geo_country, $5::integer as "partition", $6 as consent_purposes""",
            [f"{person}-{index}", person, browser, country, number, consent],
        )
    return warehouse.clean_rooms.totals(made, LIMITS)


# Mostly rows that count: what is bounded has to be reached.
rows_of_one = st.lists(
    st.tuples(
        st.sampled_from([*BROWSERS, *BROWSERS, *BROWSERS, "other", None]),
        st.sampled_from([*COUNTRIES, *COUNTRIES, *COUNTRIES, "other", None]),
        st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1), st.integers(-60, 60)),
        st.sampled_from(['["ads"]', '["ads","other"]', '["other","ads"]', "[]"]),
    ),
    max_size=16,
)
numbers = st.sampled_from([Number("partition", -10, 50, 1), Number("partition", 5, 7, 0.5), Number("partition", -1e6, -10, 0.3)])


@settings(max_examples=40, deadline=None)
@given(
    others=st.lists(rows_of_one, max_size=3),
    one=rows_of_one,
    groups=st.integers(1, 4),
    rows=st.integers(1, 4),
    number=numbers,
    conditions=st.sampled_from([(), OUTSIDE]),
)
def test_one_person_changes_no_measure_by_more_than_its_sensitivity(
    warehouse: DuckDbWarehouse, others: Any, one: Any, groups: int, rows: int, number: Number, conditions: tuple[Condition, ...]
) -> None:
    made = planned(groups, rows, number, conditions)
    around: list[Row] = [(f"other-{index}", *row) for index, person in enumerate(others) for row in person]
    without = totals(warehouse, made, around)
    with_one = totals(warehouse, made, [*around, *(("one", *row) for row in one)])
    for measure in made.measures:
        pairs = zip(*(vector(made, measure, each.groups, each.outside) for each in (without, with_one)), strict=True)
        assert sum(abs(a - b) for a, b in pairs) <= made.sensitivity(measure)


def test_the_bounds_are_reached_and_nulls_count_for_nothing(warehouse: DuckDbWarehouse) -> None:
    made = planned(2, 3, Number("partition", 5, 7, 0.5))
    wide: list[Row] = [("p", browser, country, 100, '["ads"]') for browser in BROWSERS for country in COUNTRIES for _ in range(9)]
    found = totals(warehouse, made, wide)
    assert sorted(found.groups.values()) == [[1, 3, 3 * 14, 3]] * 2
    nulls: list[Row] = [("p", "b1", "c1", None, '["ads"]'), ("q", "b1", "c1", 6, '["ads"]'), ("r", "b1", "c1", 6, '["other"]')]
    assert totals(warehouse, made, nulls).groups == {("b1", "c1"): [2, 2, 12, 1]}


def test_people_outside_are_those_whom_no_row_brings_in(warehouse: DuckDbWarehouse) -> None:
    made = planned(6, 6, Number("partition", 0, 1, 1), OUTSIDE)
    rows: list[Row] = [
        ("in", "b1", "c1", 1, '["ads"]'),
        ("in", "b1", "c1", 90, '["ads"]'),
        ("in-no-group", "other", "c1", 1, '["ads"]'),
        ("out", "b1", "c1", 90, '["ads"]'),
        ("out", "b2", "c1", None, '["ads"]'),
        ("no-consent", "b1", "c1", 90, "[]"),
    ]
    found = totals(warehouse, made, rows)
    assert (found.outside, found.groups) == (1, {("b1", "c1"): [1, 1, 1, 1]})


def test_values_that_a_double_cannot_hold_do_not_break_the_bounds(warehouse: DuckDbWarehouse) -> None:
    connection = warehouse._loading
    connection.execute("create or replace table measured as select * from tracks limit 0")
    connection.execute("alter table measured add column amount double")
    for index, amount in enumerate(("nan", "infinity", "-infinity", "1e308", "-1e308")):
        connection.execute(
            """insert into measured by name select $1 as id, 'acme' as workspace_id, $1 as profile_id, $2::double as amount,
            '["ads"]' as consent_purposes""",
            [f"p{index}", amount],
        )
    table = Table("measured", (), (Number("amount", -3, 10, 1e-9),), ())
    room = CleanRoom("acme", "retail", "main", ("ads",), (table,), 10, 30, ())
    query = AggregateQuery("measured", (Aggregate(Function.SUM, "amount"),), (), (), 1_000_000)
    columns: Mapping[str, ColumnType] = {**COLUMNS, "amount": ColumnType.DOUBLE}
    found = warehouse.clean_rooms.totals(plan(query, room, lambda _: columns), LIMITS)
    assert found.groups == {(): [5, (3 * 10 - 2 * 3) * 10**9]}
