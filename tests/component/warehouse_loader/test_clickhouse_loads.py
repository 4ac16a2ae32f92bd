"""ClickHouse has no transactions: a load that ends, or is overtaken, before any of its statements leaves each event once all the same."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.batches import Batch, fresh
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.event_load import plan_events
from cdi_warehouse_loader.domain.event_view import EventView, read_batch
from cdi_warehouse_loader.domain.layout import SEQUENCE_FACTOR
from cdi_warehouse_loader.domain.load import START, Load, Position, StreamPartition, Targets
from cdi_warehouse_loader.ports import Warehouse

from .engines import LOADED, NOW_US, Place, clickhouse, rows

pytest.importorskip("chdb", reason="no ClickHouse here: pip install 'cdi-warehouse-loader[clickhouse-test]' (half a gigabyte)")

from cdi_warehouse_loader.warehouses.clickhouse.chain import Chain, Kind, Said
from cdi_warehouse_loader.warehouses.clickhouse.connection import Connection
from cdi_warehouse_loader.warehouses.clickhouse.warehouse import ClickHouseWarehouse

MESSAGES = 3
STATEMENTS = 10
"""A load has more than so many."""


class Died(BaseException):
    """What a process that is killed does not even see."""


class Interrupted:
    """A connection before whose n-th statement something happens."""

    def __init__(self, connection: Connection, at: int, act: Callable[[], None]) -> None:
        self._connection, self._at, self._act, self.statements = connection, at, act, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)
        if name not in ("run", "rows", "insert"):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self.statements += 1
            if self.statements == self._at:
                self._act()
            return method(*arguments, **named)

        return call


def interrupted(place: Place, at: int, act: Callable[[], None]) -> ClickHouseWarehouse:
    """A process that is about to load, with something that happens before the n-th statement of its load."""
    connection = Interrupted(Connection(place.options), 0, act)
    warehouse = ClickHouseWarehouse(place.options, connection, Connection(place.options))  # type: ignore[arg-type]  # delegates
    warehouse.ensure_tables("main")
    connection._at = connection.statements + at
    return warehouse


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = clickhouse(tmp_path)
    made.open().ensure_tables("main")
    yield made
    made.close()


def batch(number: int, sequence: int) -> Batch[EventView]:
    """A message of four events: one misfits a column, the last is not the person's. Some partitions bring a column of their own."""
    name = f"m{number:03}-{sequence}"
    column = {f"of_{number}": 1} if number % 4 == 0 else {}
    events: list[Event] = [
        builders.track("Seen", message_id=f"{name}-a", user_id=f"u{number}", properties={"n": sequence} | column),
        builders.track("Seen", message_id=f"{name}-b", user_id=f"u{number}", properties={"n": "no number"}),
        builders.identify(message_id=f"{name}-c", user_id=f"u{number}", traits={"step": sequence}),
        builders.page(message_id=f"{name}-d", user_id=f"v{number}"),
    ]
    return Batch(number, sequence, sequence, read_batch(EventBatch(events=events).SerializeToString()).events)


def bring(warehouse: Warehouse, number: int, *sequences: int, only: slice = slice(None)) -> None:
    """Messages of a partition as the stream brings them: those that are loaded are left out, and of their events those beside ``only``."""
    warehouse.ensure_tables("main")
    new = fresh("ENRICHED", [batch(number, sequence) for sequence in sequences], warehouse.positions)
    items = [
        (event, one.partition, one.sequence * SEQUENCE_FACTOR + index)
        for one in new.batches
        for index, event in list(enumerate(one.events))[only]
    ]
    if items:
        warehouse.load(plan_events(items, (), new.positions, Targets(), NOW_US)(warehouse.catalog))


def insist(warehouse: Warehouse, number: int, *sequences: int, only: slice = slice(None)) -> None:
    """As ``bring``, again while the warehouse says to come again, as the stream does."""
    for _ in range(5):
        try:
            bring(warehouse, number, *sequences, only=only)
        except Unavailable:
            continue
        return
    pytest.fail("five times in a row the warehouse could not")


def check(warehouse: Warehouse, partitions: int) -> None:
    """All events of the partitions are there once, and their counts agree."""
    for table, each in {"tracks": 2, "seen": 2, "identifies": 1, "pages": 1}.items():
        found = rows(
            warehouse, f"select partition, count(), uniqExact(id) from main.{table} where partition < 999 group by partition order by 1"
        )
        assert found == [[number, MESSAGES * each, MESSAGES * each] for number in range(1, partitions + 1)], table
    found = rows(
        warehouse, "select substring(message_id, 2, 3) as p, count(), uniqExact(message_id) from main.discards group by p order by p"
    )
    assert [row for row in found if row[0] != "999"] == [[f"{number:03}", MESSAGES, MESSAGES] for number in range(1, partitions + 1)]
    found = rows(warehouse, "select id, count(), max(step) from main.users where id <> 'u999' group by id order by length(id), id")
    assert found == [[f"u{number}", 1, MESSAGES] for number in range(1, partitions + 1)]
    assert warehouse.counts() == {LOADED: 4 + partitions * MESSAGES * 4}


def test_processes_that_append_to_the_chain_at_once_have_a_number_each(place: Place) -> None:
    connections = [Connection(place.options) for _ in range(4)]

    def append(connection: Connection) -> list[int]:
        chain = Chain(connection)
        return [chain.append(Kind.CLAIM, Said()) for _ in range(10)]

    with ThreadPoolExecutor(len(connections)) as threads:
        numbers = [number for each in threads.map(append, connections) for number in each]
    assert sorted(numbers) == list(range(1, 41))
    assert rows(place.opened[0], "select count() from _cdi.commits") == [[40]]
    for connection in connections:
        connection.close()


def test_a_process_that_dies_before_any_statement_of_a_load_leaves_nothing_twice(place: Place) -> None:
    """The server lives; the events come again to another process, in other batches."""

    def die() -> None:
        raise Died

    other = place.opened[0]
    insist(other, 999, 1)  # a column that later values misfit
    number, died = 0, True
    while died:
        number += 1
        dying = interrupted(place, number, die)
        try:
            bring(dying, number, 1, 2)
            died = False
        except Died:
            pass
        dying.close()
        insist(other, number, 1)
        insist(other, number, 1, 2, 3)
    assert number > STATEMENTS
    check(other, number)


def test_a_process_that_is_overtaken_before_any_statement_of_a_load_changes_nothing(place: Place) -> None:
    """Another one takes the partition over, and loads what this one is at in other batches, while this one still thinks it has it."""
    other = place.opened[0]
    insist(other, 999, 1)
    overtaken = [0]
    number = 0
    while overtaken[-1] == number:
        number += 1

        def overtake(number: int = number) -> None:
            overtaken.append(number)
            insist(other, number, 1)

        slow = interrupted(place, number, overtake)
        insist(slow, number, 1, 2)
        slow.close()
        insist(other, number, 1, 2, 3)
    assert number > STATEMENTS
    check(other, number)


def test_people_who_are_erased_while_another_process_loads_them_do_not_stay(place: Place) -> None:
    other = place.opened[0]
    insist(other, 999, 1)
    erased = [0]
    number = 0
    while erased[-1] == number:
        number += 1

        def erase(number: int = number) -> None:
            erased.append(number)
            other.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", f"u{number}")], NOW_US)], NOW_US + number)

        slow = interrupted(place, number, erase)
        try:
            bring(slow, number, 1, 2)
        except Unavailable:
            insist(slow, number, 1, 2, only=slice(3, None))  # brought again, the person's are left out
        slow.close()
    assert number > STATEMENTS
    left = f"'u{number}'"  # of whom nobody was erased any more
    for table in ("tracks", "seen", "identifies"):
        assert rows(other, f"select distinct user_id from main.{table} order by length(user_id)") == [[f"u{number}"], ["u999"]], table
    assert rows(other, f"select count() from main.users where id not in ({left}, 'u999')") == [[0]]
    assert rows(other, f"select count() from main.discards where substring(message_id, 2, 3) not in ('{number:03}', '999')") == [[0]]
    assert rows(other, "select count(), uniqExact(id) from main.pages where partition < 999") == [[2 * number, 2 * number]]


def test_a_table_that_is_cleared_while_another_process_loads_keeps_what_comes_after(place: Place) -> None:
    """As a rebuild does, which brings again what had been loaded when it began, and nothing else."""
    other = place.opened[0]
    insist(other, 999, 1)
    cleared = [0]
    loaded: list[int] = []
    number = 0
    while cleared[-1] == number:
        number += 1

        def clear(number: int = number) -> None:
            cleared.append(number)
            begun = Load("ENRICHED", 0, (), {StreamPartition("REBUILD", number): Position(1, 0)}, {}, clears=[("main", "tracks")])
            while True:
                try:
                    other.load(begun)
                    break
                except Unavailable:  # it has not seen yet what the other one has loaded
                    continue
            loaded.append(other.positions.get(StreamPartition("ENRICHED", number), START).sequence)

        slow = interrupted(place, number, clear)
        insist(slow, number, 1, 2)
        slow.close()
        if cleared[-1] == number:
            found = rows(other, f"select count(), uniqExact(id) from main.tracks where partition = {number}")
            assert found == [[2 * (2 - loaded[-1])] * 2], number
    assert number > STATEMENTS
    assert set(loaded) == {0, 2}
