"""A process that loads numbered messages into a warehouse until it is killed, going on from the stored positions; run as a module. And
what has to be there afterwards."""

import sys

from cdi.event.v1.event_pb2 import Event
from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.load import START, StreamPartition
from cdi_warehouse_loader.ports import Warehouse
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options

from .engines import LOADED, planned, rows

PARTITIONS, EVENTS = 2, 6


def message(partition: int, number: int) -> list[Event]:
    """A message of a partition; its events make tables and columns now and then."""
    names = [f"m{partition}-{number}-{place}" for place in range(EVENTS)]
    wide = f"wide_{number // 10}"
    seen = [builders.track("Seen", message_id=name, properties={"n": number, wide: place}) for place, name in enumerate(names[2:])]
    rare = builders.track(f"Rare {number // 15}", message_id=names[0], properties={"n": number})
    return [rare, builders.identify(message_id=names[1], user_id=f"user-{number % 7}", traits={"n": number}), *seen]


def load_next(warehouse: Warehouse, partition: int) -> None:
    """Loads the message after the last one of a partition, or finds that another process has been there."""
    number = warehouse.positions.get(StreamPartition("ENRICHED", partition), START).sequence + 1
    try:
        warehouse.load(planned(warehouse, message(partition, number), partition=partition))
    except Unavailable:
        return


def each_message_once(after: Warehouse) -> None:
    """Checks that every message up to the positions is there, whole and once."""
    messages = sum(position.sequence for position in after.positions.values())
    assert len(after.positions) == PARTITIONS
    assert after.counts() == {LOADED: messages * EVENTS}
    assert rows(after, "select count(*), count(distinct id) from main.tracks") == [[messages * (EVENTS - 1)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.seen") == [[messages * (EVENTS - 2)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.identifies") == [[messages] * 2]
    rare = [table for table in after.catalog["main"] if table.startswith("rare_")]
    assert sum(rows(after, f"select count(distinct id) from main.{table}")[0][0] for table in rare) == messages
    for where, position in after.positions.items():
        found = f"select count(distinct n), min(n), max(n) from main.seen where partition = {where.partition}"
        assert rows(after, found) == [[position.sequence, 1, position.sequence]]
    assert len(after.loads(1_000_000)) == messages


def main(url: str) -> None:
    options = Options(url)
    warehouse = REGISTRY[options.kind].open(options)
    while True:
        for partition in range(PARTITIONS):
            load_next(warehouse, partition)


if __name__ == "__main__":
    main(sys.argv[1])
