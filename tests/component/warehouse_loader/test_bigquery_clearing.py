"""Emptying more tables than a transaction of BigQuery changes: all of them, whoever dies, and nothing that came after."""

from collections.abc import Iterator

import pytest

from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.layout import filled_by_events
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition
from cdi_warehouse_loader.warehouses.bigquery import sql

from .bigquery_emulator import BigQueryEmulator
from .engines import Place, bigquery, load, planned, rows
from .rebuilds import Died

AT = StreamPartition("REBUILD", 0)
KINDS = 95


@pytest.fixture
def place(bigquery_emulator: BigQueryEmulator) -> Iterator[Place]:
    made = bigquery(bigquery_emulator.new_project())
    yield made
    made.close()


def test_tables_are_emptied_before_anything_is_loaded_though_the_process_died_between(place: Place) -> None:
    dying, other = place.open(), place.open()
    for start in (0, 50):
        load(dying, *(builders.track(f"Kind {number}", message_id=f"m{number}") for number in range(start, min(start + 50, KINDS))))
    clears = sorted(("main", table) for table in filled_by_events(dying.catalog["main"]))
    assert ("main", "kind_94") not in clears[: sql.MOST_TABLES]
    connection = dying._loading  # type: ignore[attr-defined]
    run = connection.run

    def run_first(script: str) -> None:
        run(script)
        raise Died

    connection.run = run_first
    with pytest.raises(Died):
        dying.load(Load("ENRICHED", 0, (), {AT: Position(1, 0)}, {}, clears))
    assert rows(other, "select id from main.kind_94") == [["m94"]]
    with pytest.raises(Unavailable):
        other.load(planned(other, [builders.track("Kind 94", message_id="new")], partition=1))
    assert other.positions[AT] == Position(1, 0)
    load(other, builders.track("Kind 94", message_id="new"), partition=1)
    connection.run = run
    late = place.open()
    load(late, builders.track("Kind 0", message_id="newer"), partition=2)
    assert rows(late, "select id from main.kind_94") == [["new"]]
    assert rows(late, "select id from main.kind_0") == [["newer"]]
    assert rows(late, "select id from main.tracks order by id") == [["new"], ["newer"]]
    assert rows(late, "select count(*) from main.kind_1") == [[0]]
    assert rows(late, "select count(*) from _cdi.clears") == [[0]]
