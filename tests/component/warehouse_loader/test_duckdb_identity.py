"""A DuckDB file from before identifiers were loaded is taken over."""

from pathlib import Path

import duckdb

from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition
from cdi_warehouse_loader.ports import QueryLimits, Question
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse, open_warehouse

from .conftest import graph_changed

LIMITS = QueryLimits(1_000, 1_000_000, 10.0)
AT = StreamPartition("IDENTITY", 0)


def load(warehouse: DuckDbWarehouse, *messages: GraphChanged) -> None:
    """Loads messages with the next sequences."""
    first = warehouse.positions.get(AT, Position(0, 0)).sequence + 1
    numbered = [Numbered(first + place, message) for place, message in enumerate(messages)]
    loads = graph_loads("main", numbered, 1, personal=True)
    warehouse.load(Load("IDENTITY", len(messages), loads, {AT: Position(first + len(messages) - 1, 0)}, {}))


def rows(warehouse: DuckDbWarehouse, sql: str) -> list[list[object]]:
    return [list(row) for row in warehouse.query(Question(sql, LIMITS)).values]


def test_a_file_of_the_previous_layout_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute(
            "create table id_graph_updates (workspace_id varchar, profile_id varchar, canonical_profile_id varchar,"
            " triggering_event_type varchar, triggering_event_id varchar, timestamp timestamptz, graph_seq bigint, loaded_at timestamptz)"
        )
        merges = [("a", "b"), ("b", "c"), ("x", "y"), ("c", "d")]
        for number, (merged, into) in enumerate(merges, 1):
            old.execute("insert into id_graph_updates values ('w', ?, ?, null, 'm', now(), ?, now())", [merged, into, number])
        old.execute("create view profiles_canonical as select profile_id, canonical_profile_id from id_graph_updates")
        old.execute("create table events_by_person (id varchar)")
        old.execute("insert into events_by_person values ('of an event with that name')")
        old.execute("create table tracks (id varchar, workspace_id varchar, profile_id varchar, user_id varchar, extra integer)")
        old.execute("insert into tracks values ('1', 'w', 'a', 'ada', 5), ('2', 'w', 'new', null, 6)")
        identifiers = "user_id varchar, anonymous_id varchar, profile_id varchar"
        old.execute(f"create table seen (id varchar, workspace_id varchar, {identifiers}, event_seq bigint)")
        old.execute("insert into seen values ('1', 'w', 'ada', null, 'a', 1)")
        old.execute("create schema _cdi")
        old.execute("create table _cdi.progress (stream varchar, partition integer, sequence bigint, source_sequence bigint)")
        old.execute("insert into _cdi.progress values ('IDENTITY', 0, 4, 0)")
    for _ in range(2):
        warehouse = open_warehouse(Options(f"duckdb:{path}"))
        assert rows(warehouse, "select profile_id, canonical_profile_id from profile_merges order by 1") == [
            ["a", "d"],
            ["b", "d"],
            ["c", "d"],
            ["d", "d"],
            ["x", "y"],
            ["y", "y"],
        ]
        assert rows(warehouse, "select count(*) from id_graph_updates") == [[4 + 6]]
        assert rows(warehouse, "select id, canonical_profile_id from events_by_person order by 1") == [["1", "d"], ["2", "new"]]
        assert rows(warehouse, "select id from event_events_by_person") == [["of an event with that name"]]
        assert warehouse.positions == {AT: Position(4, 0)}
        warehouse.close()

    warehouse = open_warehouse(Options(f"duckdb:{path}"))
    members = [(profile, "e") for profile in ("a", "b", "c", "d")]
    load(warehouse, graph_changed(canonicals=[("e", "e"), *members], workspace_id="w"))
    assert rows(warehouse, "select distinct canonical_profile_id from profile_merges order by 1") == [["e"], ["y"]]
    load(warehouse, graph_changed(removed=[("user_id", "ada", "a")], created=[("user_id", "ada", "f")], workspace_id="w"))
    assert rows(warehouse, "select id, extra, canonical_profile_id from by_person(tracks) order by 1") == [["1", 5, "f"], ["2", 6, "new"]]
    assert rows(warehouse, "select id, demoted_identifiers, canonical_profile_id from by_person(seen)") == [["1", None, "f"]]
    warehouse.close()
