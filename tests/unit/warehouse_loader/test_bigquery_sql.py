"""What the loader says to BigQuery, read by a parser of BigQuery's dialect: in this order, and with nothing of a person in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from cdi.event.v1.outcome_pb2 import OUTCOME_LOADED
from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.layout import STARTING_TABLES
from cdi_warehouse_loader.domain.load import CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.faults import OutOfMemory

pytest.importorskip("google.cloud.bigquery", reason="no client of BigQuery here: pip install 'cdi-warehouse-loader[bigquery-test]'")
pytest.importorskip("sqlglot", reason="no parser of SQL here: pip install 'cdi-warehouse-loader[bigquery-test]'")

import sqlglot
from google.api_core.exceptions import BadRequest

from cdi_warehouse_loader.warehouses.bigquery import erasure, identity, loading, sql, staging
from cdi_warehouse_loader.warehouses.bigquery.connection import Address, Connection, Refused

AT, OTHER = StreamPartition("ENRICHED", 3), StreamPartition("ENRICHED", 4)


@dataclass
class Recorder(Connection):
    """A connection that notes what it is told, and fails as it is told."""

    failures: list[Exception] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self, statement: str, **parameters: Any) -> Iterator[Any]:
        self.said.append(statement)
        self.parameters.append(parameters)
        if self.failures:
            raise self.failures.pop(0)
        yield []

    def load(self, table: str, parquet: Any, columns: Any) -> None:
        self.loaded.append(table)

    def drop_staged(self, table: str) -> None:
        self.loaded.append(f"-{table}")


def parsed(script: str) -> list[Any]:
    """The statements of a script; the parser refuses what is no BigQuery."""
    return [one for one in sqlglot.parse(script, dialect="bigquery") if one is not None]


def kinds(script: str) -> list[str]:
    return [type(one).__name__ for one in parsed(script)]


def table(name: str, **columns: Any) -> TableLoad:
    keys = ("workspace_id", "id") if name == "users" else ()
    return TableLoad("main", name, pa.record_batch(columns), merge_keys=keys)


def commit_of(load: Load, tables: list[TableLoad], positions: dict[StreamPartition, Position] | None = None) -> str:
    with staging.staged(Recorder(), [one.rows for one in tables]) as rows:
        done = [one.done() for one in tables]
        return loading.commit(load, list(zip(done, rows, strict=True)), 7, positions or {}, lambda: 12.5)


def test_a_load_is_one_transaction_that_looks_before_it_writes() -> None:
    tables = [
        table("seen", id=["a"], n=[1]),
        table("users", workspace_id=["w"], id=["u"], timestamp=pa.array([1], pa.timestamp("us", "UTC"))),
    ]
    counts = {CountKey("warehouse:main", OUTCOME_LOADED, ""): 2}
    script = commit_of(Load("ENRICHED", 2, (), {AT: Position(5, 5)}, counts), tables, {AT: Position(4, 4)})
    names = kinds(script)
    assert names[0] == "Transaction"
    assert names[-1] == "Commit"
    assert names[1:4] == ["Update", "Select", "Select"]  # its turn, the version, the positions
    assert names[4:-1] == ["Merge", "Insert", "Merge", "Insert", "Insert"]  # positions, rows, people, counts, log
    assert "= 7, 'as planned', ERROR(" in script
    assert "`sequence` = 4 AND `source_sequence` = 4" in script


def test_a_partition_that_was_never_loaded_has_no_row_that_says_so() -> None:
    script = commit_of(Load("ENRICHED", 0, (), {OTHER: Position(1, 1)}, {}), [], {AT: Position(4, 4)})
    (check,) = [line for line in script.split(";\n") if "progress" in line and line.startswith("SELECT")]
    place = "(`stream` = 'ENRICHED' AND `partition` = 4)) AND (`sequence` <> 0 OR `source_sequence` <> 0)"
    assert check.endswith(f"{place}) = 0, 'as planned', ERROR('cdi: another process was there'))")


def test_tables_are_cleared_inside_of_the_transaction() -> None:
    assert kinds(commit_of(Load("ENRICHED", 0, (), {}, {}, clears=[("main", "seen")]), [])) == [
        "Transaction",
        "Update",
        "Select",
        "Delete",
        "Insert",
        "Commit",
    ]


def test_tables_that_are_too_many_for_one_transaction_are_noted_in_it_and_cleared_after() -> None:
    many = [("main", f"event_{number}") for number in range(sql.MOST_TABLES + 2)]
    script = commit_of(Load("ENRICHED", 0, (), {AT: Position(1, 1)}, {}, clears=many), [])
    assert kinds(script).count("Delete") == sql.MOST_TABLES
    assert all(f"'{table}'" in script for _, table in many[sql.MOST_TABLES :])
    assert "'event_0'" not in script
    assert kinds(loading.clear(many[-2:])) == ["Transaction", "Update", "Select", "Delete", "Delete", "Delete", "Commit"]


def test_a_load_of_more_tables_than_a_transaction_may_change_is_too_large() -> None:
    tables = [table(f"event_{number}", id=["a"]) for number in range(sql.MOST_TABLES + 1)]
    commit_of(Load("ENRICHED", 1, (), {AT: Position(1, 1)}, {}), tables[1:])
    with pytest.raises(OutOfMemory):
        commit_of(Load("ENRICHED", 1, (), {AT: Position(1, 1)}, {}), tables)


def test_no_definition_of_a_table_is_inside_of_a_transaction() -> None:
    changes = [("main", "seen", "n", "column_added", "BIGINT")]
    assert kinds(loading.announcement(6, changes)) == ["Transaction", "Update", "Select", "Insert", "Commit"]


def test_every_table_and_view_is_bigquerys() -> None:
    for statement in (*sql.OWN_TABLES, sql.FORGET_LOG, *sql.starting_tables("main", {}), *identity.views("main")):
        assert len(parsed(statement)) == 1
    (change,) = parsed(sql.add_columns("main", "seen", {"größe": ColumnType.TEXT, "n": ColumnType.BIGINT}))
    assert len(change.args["actions"]) == 2
    widened = list(sql.change_table(TableLoad("main", "seen", None, widened=["n"]), is_new=False))
    assert widened == ["ALTER TABLE `main`.`seen` ALTER COLUMN `n` SET DATA TYPE FLOAT64"]
    tracks = sql.create_table("main", "tracks", STARTING_TABLES["tracks"])
    assert tracks.endswith("PARTITION BY TIMESTAMP_TRUNC(`received_at`, DAY) CLUSTER BY `workspace_id`, `user_id`")


@pytest.mark.parametrize("name", ["_partition", "_partitiontime", "_table_suffix", "_row_timestamp", "_change_type"])
def test_names_that_bigquery_keeps_for_itself_come_back(name: str) -> None:
    stored = sql.stored_column(name)
    assert not stored.startswith("_")
    assert sql.seen_column(stored) == name
    assert sql.seen_column("x_ray") == "x_ray"


@pytest.mark.parametrize("value", ["it's", "\\", "\\'; DROP TABLE `main`.`seen`; --", "two\nlines\r", "`", '"', "Ü"])
def test_a_text_stays_a_text(value: str) -> None:
    (statement,) = parsed(f"SELECT {sql.text(value)}")
    assert statement.expressions[0].this == value


def test_rows_of_all_tables_are_one_load_job() -> None:
    connection = Recorder()
    tables = [
        table("seen", id=["a", "b"], n=[1, 2], at=pa.array([0, 1], pa.timestamp("us", "UTC"))),
        table("tracks", id=pa.array(["a", "b"]).dictionary_encode(), event=["x", "y"]),
    ]
    with staging.staged(connection, [*(one.rows for one in tables), None]) as (seen, tracks, nothing):
        assert seen is not None
        assert tracks is not None
        assert nothing is None
        assert [len(connection.loaded), connection.loaded[0] in seen.source, connection.loaded[0] in tracks.source] == [1, True, True]
        assert "SELECT `s0` AS `id`, `s1` AS `event` FROM" in tracks.source
    assert connection.loaded[1] == f"-{connection.loaded[0]}"


def test_a_conflict_is_tried_again_and_what_was_overtaken_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_WAIT_SECONDS", 0.0)
    conflict = Refused(BadRequest("Transaction is aborted due to concurrent update against table p:_cdi.state. Transaction ID: 1"))
    connection = Recorder(failures=[conflict, conflict])
    loading.in_turn(connection, "SELECT 1")
    assert len(connection.said) == 3
    overtaken = Recorder(failures=[Refused(BadRequest(f"{sql.OVERTAKEN} at [3:8]"))])
    with pytest.raises(loading.Overtaken):
        loading.in_turn(overtaken, "SELECT 1")
    assert len(overtaken.said) == 1
    with pytest.raises(Unavailable, match="all turns"):
        loading.in_turn(Recorder(failures=[conflict] * 20), "SELECT 1")
    with pytest.raises(Unavailable) as told:
        loading.in_turn(Recorder(failures=[Refused(BadRequest("Bad int64 value: ada@example.com"))]), "SELECT 1")
    assert "ada" not in str(told.value)


def test_no_statement_of_an_erasure_says_whom_it_erases() -> None:
    connection = Recorder()
    ids = [PersonId("acme", "user_id", "planted-7f3a"), PersonId("acme", "email", "planted-7f3a@example.com")]
    catalog = {"main": {name: dict(columns) for name, columns in STARTING_TABLES.items()}}
    erasure.remember(connection, [Erasure(ids, 5)], 6)
    erasure.erase(connection, catalog, [Erasure(ids, 5)])
    assert not any("planted" in text for text in (*connection.said, *map(repr, connection.parameters)))
    for statement in connection.said:
        assert parsed(statement)
    assert kinds(connection.said[0]) == ["Transaction", "Update", "Insert", "Insert", "Commit"]


def test_a_url_says_where_and_as_whom() -> None:
    address = Address.of("bigquery://shop-42/analytics?location=EU&credentials=/keys/loader.json&max_bytes_billed=1000")
    assert (address.project, address.dataset, address.location) == ("shop-42", "analytics", "EU")
    assert (address.credentials, address.query_credentials, address.bytes_billed) == ("/keys/loader.json", "/keys/loader.json", 1000)
    assert Address.of("bigquery://shop-42").dataset == "main"
