"""The questions for past events on a real DuckDB, and that they find the columns that the loader makes."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_identity.clients import archive_sql
from cdi_identity.domain.computed_traits import Aggregation, ComputedTrait, Condition, Operator
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses.duckdb.sql import starting_tables

LINKED = "018f0000-0000-7000-8000-000000000001"
OWN = frozenset({"id", "user_id", "event", "timestamp", "workspace_id"})

keys = st.text(st.characters(categories=["L", "N"]) | st.sampled_from("_- $"), min_size=1, max_size=12)
nasty = st.sampled_from(["a'b", "'; drop table tracks; --", "\0", "x"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("set global timezone = 'UTC'")
    for statement in starting_tables("main", {}):
        connection.execute(statement)
    yield connection
    connection.close()


def one(duck: duckdb.DuckDBPyConnection, statement: str) -> list[Any]:
    [parsed] = duckdb.extract_statements(statement)
    assert parsed.type is duckdb.StatementType.SELECT
    return duck.execute(parsed).fetchall()


def trait(path: str = "properties.total", kind: str = "track", names: tuple[str, ...] = ()) -> ComputedTrait:
    return ComputedTrait("w", "t", Aggregation.SUM, kind, names, path, (Condition("context.ip", Operator.EXISTS),))


@given(st.lists(keys, min_size=1, max_size=3))
def test_a_property_is_found_in_the_column_that_the_loader_makes(path: list[str]) -> None:
    column = naming.ColumnNames(OWN)["_".join(path)]
    if not naming.snake("_".join(path)).strip("_") or len(naming.snake("_".join(path)).encode()) > 60:
        return
    table = archive_sql.event_table(trait("properties." + ".".join(path)), "main", "t", {*OWN, column}, OWN)
    assert [found for _, found in table.columns] == [column]


@given(st.lists(keys, min_size=1, max_size=3))
def test_a_context_value_is_found_in_the_column_that_the_loader_makes(path: list[str]) -> None:
    column = naming.ContextNames(frozenset())["_".join(path)]
    if not naming.snake("_".join(path)).strip("_") or len(naming.snake("_".join(path)).encode()) > 50:
        return
    table = archive_sql.event_table(trait("context." + ".".join(path)), "main", "t", {column}, OWN)
    assert ("context." + ".".join(path), column) in table.columns


@given(nasty, nasty, st.sampled_from(["track", "page", "screen"]))
def test_every_question_is_one_select_whatever_the_names(duck: duckdb.DuckDBPyConnection, name: str, workspace: str, kind: str) -> None:
    asked = ComputedTrait(workspace, "t", Aggregation.EVENT_COUNTER, kind, (name,))
    tables = {"track": "tracks", **archive_sql.TABLES}
    table = archive_sql.event_table(asked, "main", tables[kind], (), ())
    assert one(duck, archive_sql.page_statement(asked, table, (0, name), 1, 10)) == []
    assert one(duck, archive_sql.days_statement(asked, table, 0)) == []
    if kind == "track":
        assert one(duck, archive_sql.stems_statement(asked, "main")) == []
    assert len(one(duck, archive_sql.columns_statement(("", "", "")))) > 50


def test_pages_go_on_where_the_last_one_ended(duck: duckdb.DuckDBPyConnection) -> None:
    for number in range(7):
        duck.execute(
            "insert into pages (id, name, workspace_id, profile_id, \"timestamp\") values (?, 'Home', 'w', ?, make_timestamptz(?))",
            [f"m{number}", LINKED, 10 + number // 3],
        )
    asked = ComputedTrait("w", "t", Aggregation.EVENT_COUNTER, "page", ("Home",))
    table = archive_sql.event_table(asked, "main", "pages", (), ())
    assert one(duck, archive_sql.days_statement(asked, table, 0)) == [(0,)]
    seen: list[str] = []
    after = (0, "")
    while rows := one(duck, archive_sql.page_statement(asked, table, after, archive_sql.DAY_US, 2)):
        seen += [row[0] for row in rows]
        after = (rows[-1][1], rows[-1][0])
    assert seen == [f"m{number}" for number in range(7)]
    duck.execute("delete from pages")
