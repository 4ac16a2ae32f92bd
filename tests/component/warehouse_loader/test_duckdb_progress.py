"""Positions and counts of many loads: summed up when read, folded now and then, kept over a restart."""

from pathlib import Path

import duckdb

from cdi.event.v1 import outcome_pb2
from cdi_warehouse_loader.domain.load import CountKey, Load, Position, StreamPartition
from cdi_warehouse_loader.ports import QueryLimits, Question
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb.warehouse import open_warehouse

LOADED = CountKey("warehouse:main", outcome_pb2.OUTCOME_LOADED, "")
FILTERED = CountKey("warehouse:main", outcome_pb2.OUTCOME_FILTERED, "consent_denied")
LOADS = 520
LIMITS = QueryLimits(10, 1_000, 10.0)


def test_progress_of_many_loads_is_folded_and_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    warehouse = open_warehouse(Options(f"duckdb:{path}"))
    for number in range(1, LOADS + 1):
        counts = {LOADED: 2, **({FILTERED: 1} if number % 2 else {})}
        at = StreamPartition("ENRICHED", number % 3)
        warehouse.load(Load("ENRICHED", 2, (), {at: Position(number, number + 1_000)}, counts))
        if number == LOADS // 2:
            warehouse.load(Load("ENRICHED", 2, (), {at: Position(9_999, 9_999)}, {LOADED: 7}), keep=False)
    positions = {StreamPartition("ENRICHED", n % 3): Position(n, n + 1_000) for n in range(LOADS - 2, LOADS + 1)}
    expected = {LOADED: 2 * LOADS, FILTERED: LOADS // 2}
    kept = warehouse.query(Question("select count(*) from _cdi.progress", LIMITS)).values[0][0]
    assert int(kept) < LOADS / 2
    assert (warehouse.positions, warehouse.counts()) == (positions, expected)
    warehouse.close()

    again = open_warehouse(Options(f"duckdb:{path}"))
    assert (again.positions, again.counts()) == (positions, expected)
    again.close()


def test_a_file_of_the_first_loaders_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute("create schema _cdi")
        keyed = "stream varchar, partition integer, sequence bigint, source_sequence bigint, primary key (stream, partition)"
        old.execute(f"create table _cdi.positions ({keyed})")
        old.execute("create table _cdi.outcome_counts (sink varchar, outcome integer, reason varchar, events bigint)")
        old.execute("insert into _cdi.positions values ('ENRICHED', 3, 17, 90)")
        old.execute("insert into _cdi.outcome_counts values (?, ?, ?, 12)", [LOADED.sink, int(LOADED.outcome), LOADED.reason])
    for _ in range(2):
        warehouse = open_warehouse(Options(f"duckdb:{path}"))
        assert warehouse.positions == {StreamPartition("ENRICHED", 3): Position(17, 90)}
        assert warehouse.counts() == {LOADED: 12}
        warehouse.close()
