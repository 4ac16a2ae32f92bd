"""Loads into the same tables again and again: what is prepared once must not outlive what it was prepared for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cdi.event.v1.event_pb2 import Event
from cdi_testing import builders
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb import feeding
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse, open_warehouse

from .engines import load, planned, rows


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDbWarehouse]:
    """An empty one."""
    opened = open_warehouse(Options(f"duckdb:{tmp_path / 'warehouse.duckdb'}"))
    yield opened
    opened.close()


def seen(number: int, **properties: object) -> Event:
    return builders.track("Seen", message_id=f"m{number}", properties=properties)


def take_back(warehouse: DuckDbWarehouse, *events: Event) -> None:
    warehouse.load(planned(warehouse, events), keep=False)


def test_columns_that_come_and_go_keep_their_values_apart(warehouse: DuckDbWarehouse) -> None:
    load(warehouse, seen(1, a=1, b="x"))
    load(warehouse, seen(2, b="y"))
    load(warehouse, seen(3, c=True, a=3))
    load(warehouse, seen(4))
    load(warehouse, seen(5, a=5))
    found = rows(warehouse, "select id, a, b, c from main.seen order by id")
    assert found == [["m1", 1, "x", None], ["m2", None, "y", None], ["m3", 3, None, True], ["m4", None, None, None], ["m5", 5, None, None]]


def test_contexts_that_come_and_go_keep_their_values_apart(warehouse: DuckDbWarehouse) -> None:
    for number, context in enumerate((b'{"locale":"de"}', b"{}", b'{"timezone":"UTC"}', b'{"locale":"fr","timezone":"UTC"}')):
        event = seen(number)
        event.context = context
        load(warehouse, event)
    found = rows(warehouse, "select id, context_locale, context_timezone from main.seen order by id")
    assert found == [["m0", "de", None], ["m1", None, None], ["m2", None, "UTC"], ["m3", "fr", "UTC"]]


def test_a_column_that_was_widened_or_a_table_that_came_between_is_no_stale_plan(warehouse: DuckDbWarehouse) -> None:
    load(warehouse, seen(1, a=1))
    load(warehouse, seen(2, a=2.5))
    load(warehouse, builders.track("Other", message_id="m3"), seen(4, a=4))
    load(warehouse, seen(5, a=5))
    assert rows(warehouse, "select id, a from main.seen order by id") == [["m1", 1.0], ["m2", 2.5], ["m4", 4.0], ["m5", 5.0]]


def test_a_load_that_was_taken_back_leaves_nothing_behind_that_the_next_one_needs(warehouse: DuckDbWarehouse) -> None:
    take_back(warehouse, seen(1, a=1))
    load(warehouse, seen(1, a=1))
    take_back(warehouse, seen(2, a=2))
    load(warehouse, seen(2, a=2))
    broken = replace(planned(warehouse, [seen(3, a=3)]), tables=[TableLoad("main", "seen", pa.record_batch({"a": ["no number"]}))])
    with pytest.raises(duckdb.ConversionException, match="no number"):
        warehouse.load(broken)
    load(warehouse, seen(3, a=3))
    assert rows(warehouse, "select id, a from main.seen order by id") == [["m1", 1], ["m2", 2], ["m3", 3]]


def test_people_are_merged_again_and_again(warehouse: DuckDbWarehouse) -> None:
    for number in (1, 2, 3):
        traits = {"n": number, **({"plan": "pro"} if number == 2 else {})}
        load(warehouse, builders.identify(message_id=f"m{number}", user_id="u", traits=traits))
    assert rows(warehouse, "select id, n, plan from main.users") == [["u", 3, "pro"]]


def test_only_so_many_statements_are_kept(warehouse: DuckDbWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "MOST_KEPT", 4)
    for number in range(1, 4):
        kinds = [builders.track(f"Kind {kind}", message_id=f"m{number}-{kind}", properties={"n": kind}) for kind in range(7)]
        load(warehouse, *kinds)
    for kind in range(7):
        assert rows(warehouse, f"select count(*), min(n), max(n) from main.kind_{kind}") == [[3, kind, kind]]
