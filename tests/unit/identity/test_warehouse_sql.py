"""The questions to the warehouse on a real DuckDB: whatever the values, one statement that asks for them and nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdi_identity.clients import warehouse_sql
from cdi_identity.clients.warehouse_sql import EventRows, literal, properties_statement, quoted, search_statement, tables_of_track
from cdi_identity.domain.history import EventSearch, Place
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses.duckdb.sql import create_table, place, starting_tables

LINKED = "018f0000-0000-7000-8000-000000000001"
UNLINKED = "5b1d7c52-6d0a-5d7e-9a55-0cd1f3a3b0a1"

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("'\"\\;-\0$%_\n"), max_size=30)
nasty = texts | st.sampled_from(["'; drop table tracks; --", "''", "\\'", '"', "' or 1=1 --", "$$", "\0", "a\0'b", "*/", "{0}", "%s", "?"])
names = nasty.filter(lambda name: name and "\0" not in name)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("set global timezone = 'UTC'")
    for statement in starting_tables("main", {}):
        connection.execute(statement)
    yield connection
    connection.close()


def one(duck: duckdb.DuckDBPyConnection, statement: str) -> list[Any]:
    """The rows of a statement that must be a single SELECT, as the loader requires it."""
    [parsed] = duckdb.extract_statements(statement)
    assert parsed.type is duckdb.StatementType.SELECT
    return duck.execute(parsed).fetchall()


@given(nasty)
def test_a_literal_is_the_text_itself(duck: duckdb.DuckDBPyConnection, text: str) -> None:
    assert one(duck, f"select {literal(text)} as a, 1 as b") == [(text, 1)]


@given(names)
def test_a_quoted_name_is_the_name_itself(duck: duckdb.DuckDBPyConnection, name: str) -> None:
    one(duck, f"select 1 as {quoted(name)}")
    assert duck.description is not None
    assert [column[0] for column in duck.description] == [name]


def insert(duck: duckdb.DuckDBPyConnection, table: str, **values: Any) -> None:
    columns = ", ".join(map(quoted, values))
    row = [*values.values()]
    duck.execute(
        f'insert into {place("main", table)} ({columns}, "timestamp") values ({", ".join("?" * len(row))}, make_timestamptz(7))', row
    )


def found(
    duck: duckdb.DuckDBPyConnection,
    workspace: str,
    profiles: Sequence[str] = (),
    users: Sequence[str] = (),
    devices: Sequence[str] = (),
    events: Sequence[str] = (),
    before: Place | None = None,
) -> list[str]:
    search = EventSearch(workspace, profiles, users, devices, events, 0, before)
    return [row[1] for row in one(duck, search_statement(search, ["main"], 10))]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(nasty, min_size=6, max_size=6, unique=True))
@example(values=["w", "'; drop table tracks; --", "' or '1'='1", "\\'", "a\0'b", "')) union all select 1 --"])
def test_a_search_finds_its_events_and_no_others(duck: duckdb.DuckDBPyConnection, values: list[str]) -> None:
    workspace, message_id, user, device, name, other = values
    duck.execute("delete from tracks; delete from pages")
    insert(duck, "tracks", id=message_id, workspace_id=workspace, user_id=user, profile_id=LINKED, event_text=name)
    insert(duck, "tracks", id="x-hidden", workspace_id=workspace, user_id=user, profile_id=UNLINKED, event_text=name)
    insert(duck, "tracks", id="x-else", workspace_id=other, user_id=user, profile_id=LINKED, event_text=name)
    insert(duck, "pages", id=f"{message_id}+", workspace_id=workspace, anonymous_id=device, profile_id=LINKED, name=other)
    both = sorted([message_id, f"{message_id}+"], key=str.encode, reverse=True)
    assert found(duck, workspace, users=[user], devices=[device]) == both
    assert found(duck, workspace, profiles=[LINKED, other]) == both
    assert found(duck, workspace, users=[user], events=[name]) == [message_id]
    assert found(duck, workspace, users=[other, name], devices=[user]) == []
    assert found(duck, workspace, profiles=[LINKED], before=Place(7, f"{message_id}+")) == [message_id]
    assert found(duck, workspace, profiles=[LINKED], before=Place(6, "zz")) == []
    assert one(duck, "select count(*) from tracks") == [(3,)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, names, nasty, nasty)
@example('we"ird', "'; drop table tracks; --", "m\0'1", "w'")
def test_properties_are_those_of_the_row_without_what_every_event_has(
    duck: duckdb.DuckDBPyConnection, table: str, column: str, message_id: str, workspace: str
) -> None:
    table, column = f"t{table}", f"c{column}"
    duck.execute(create_table("main", table, {"id": "VARCHAR", "workspace_id": "VARCHAR", "timestamp": "TIMESTAMPTZ"}))  # type: ignore[dict-item]  # DuckDB's names do as well
    for more in (quoted(column), "context_ip", "empty"):
        duck.execute(f"alter table {place('main', table)} add column {more} varchar")
    try:
        insert(duck, table, id=message_id, workspace_id=workspace, context_ip="10.0.0.1", **{column: "v"})
        insert(duck, table, id=message_id, workspace_id=f"{workspace}+")
        rows = EventRows("main", table, ["workspace_id", "timestamp"], [message_id, "'"], 7, 7)
        statement = properties_statement(workspace, [rows, rows])
        assert one(duck, f"select properties->>'id', json_keys(properties) from ({statement})") == [(message_id, ["id", column])] * 2
    finally:
        duck.execute(f"drop table {place('main', table)}")


words = st.sampled_from(["users", "event", "Event ", "events", "select", "7", "Order", "_", " ", "é", "x" * 30, "Ж" * 20, "TRACKS", "!"])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.lists(words, max_size=6).map("".join))
def test_the_table_of_a_track_is_among_the_candidates(name: str) -> None:
    table, stem = naming.table_name(name), naming.snake(name).strip("_")
    others = [f"z_{number}" for number in range(3)] + ["z_0123abcd"]
    assert tables_of_track(stem, [*others, table]) == [table]


def test_every_schema_is_looked_into_and_an_event_in_two_of_them_is_one(duck: duckdb.DuckDBPyConnection) -> None:
    for statement in starting_tables("second", {}):
        duck.execute(statement)
    duck.execute("delete from tracks")
    insert(duck, "tracks", id="m", workspace_id="w", user_id="u", profile_id=LINKED, event_text="Paid", event="paid")
    duck.execute("insert into second.tracks by name select * from main.tracks")
    duck.execute("create table paid (id varchar, event_text varchar)")
    search = EventSearch("w", [LINKED], [], [], [], 0, None)
    assert one(duck, search_statement(search, ["main", "second"], 10)) == [
        ("track", "m", "Paid", None, 7, LINKED, "u", None, "main", "paid")
    ]
    catalog = one(duck, warehouse_sql.CATALOG)
    assert {row[0] for row in catalog if row[1] == "tracks"} == {"main", "second"}
    assert ("main", "paid", "event_text") in catalog
    duck.execute("drop schema second cascade; drop table paid")
