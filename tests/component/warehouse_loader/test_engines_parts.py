"""What every engine has to do with a message that is loaded in parts, because the whole is too large for it."""

import contextlib
from typing import Any

import pytest

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.batches import Batch
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, Load, Position, StreamPartition
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.ports import Warehouse

from .engines import LOADED, Place
from .rebuilds import Died, column, loading, opened

TRIES = 3
"""A reader brings a message again, too, when another process was there."""


class Cramped:
    """A warehouse that has room for a few events at a time, in a process that dies after its first loads of some.

    Args:
        warehouse: the real one.
        most: events of a load.
        loads: that are done before it dies.
    """

    def __init__(self, warehouse: Warehouse, most: int, loads: int) -> None:
        self._warehouse, self._most, self._loads = warehouse, most, loads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warehouse, name)

    def load(self, load: Load, *, keep: bool = True) -> Any:
        if load.events > self._most:
            raise OutOfMemory("warehouse", "no room")
        if not self._loads:
            raise Died
        self._loads -= 1
        return self._warehouse.load(load, keep=keep)


def message(*events: Event) -> Batch[Any]:
    """The first message of a partition."""
    return Batch(0, 1, 1, read_batch(EventBatch(events=events).SerializeToString()).events)


async def brought(access: Access, batch: Batch[Any]) -> None:
    """Brings a message until it is loaded."""
    for _ in range(TRIES):
        with contextlib.suppress(Unavailable):
            await loading(access).events([batch])
    await loading(access).events([batch])  # what is loaded is left out


async def cramped(place: Place, *, loads: int) -> Access:
    """A process that has room for three events at a time."""
    access = Access(lambda: Cramped(place.open(), 3, loads), lambda: None, (DEFAULT_TARGET,))
    await access.open()
    return access


async def test_the_rest_of_a_message_is_loaded_by_whoever_brings_it_again_and_nothing_twice(place: Place) -> None:
    batch = message(*(builders.track("Seen", message_id=f"m{number}") for number in range(6)))
    other = await opened(place) if place.shared else None
    if other:  # it believes that nothing of the message is loaded
        await brought(other, Batch(1, 1, 1, batch.events[:1]))
    dying = await cramped(place, loads=1)
    with pytest.raises(Died):
        await loading(dying).events([batch])
    assert await column(dying, "select id from main.seen where id <> 'm0'") == ["m1", "m2"]
    dying.close()
    access = other or await opened(place)
    await brought(access, batch)
    again = ["m0"] if other else []
    assert await column(access, "select id from main.seen") == sorted([*again, *(f"m{number}" for number in range(6))])
    counts, positions = await access.write(lambda held: (dict(held.counts()), held.positions))
    assert counts == {LOADED: 6 + len(again)}
    assert positions[StreamPartition("ENRICHED", 0)] == Position(1, 1)
    access.close()


async def test_no_part_is_loaded_of_a_message_that_another_process_has_brought(place: Place) -> None:
    if not place.shared:
        pytest.skip("one process at a time: a second one cannot open it")
    batch = message(*(builders.track("Seen", message_id=f"m{number}") for number in range(6)))
    access = await cramped(place, loads=9)
    await brought(access, Batch(1, 1, 1, batch.events[:1]))
    other = await opened(place)  # the first one does not see what this one does
    await brought(other, batch)
    await brought(access, batch)
    assert await column(access, "select id from main.seen") == sorted(["m0", *(f"m{number}" for number in range(6))])
    assert await access.write(lambda held: dict(held.counts())) == {LOADED: 7}
    for each in (access, other):
        each.close()


async def test_a_message_of_more_kinds_than_one_transaction_takes_is_loaded(place: Place) -> None:
    """BigQuery changes 100 tables in a transaction, the loader's own among them."""
    kinds = 95
    access = await opened(place)
    await brought(access, message(*(builders.track(f"Kind {number}", message_id=f"m{number}") for number in range(kinds))))
    assert await column(access, "select count(distinct id) from main.tracks") == await column(access, "select count(*) from main.tracks")
    assert await column(access, "select id from main.kind_94") == ["m94"]
    counts, positions = await access.write(lambda held: (dict(held.counts()), held.positions))
    assert counts == {LOADED: kinds}
    assert positions[StreamPartition("ENRICHED", 0)] == Position(1, 1)
    access.close()
