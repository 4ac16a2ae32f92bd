"""A DuckDB file that is opened anew while it is loaded and queried, so that what DuckDB keeps in memory of it does not grow."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cdi.event.v1.event_pb2 import EventBatch
from cdi_testing import builders, eventually
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.batches import Batch
from cdi_warehouse_loader.domain.event_view import EventView, read_batch
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, Position, StreamPartition
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb import warehouse
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse

from .engines import LOADED
from .rebuilds import column, loading

EVENTS = 5
ROWS = 2 * EVENTS
"""Of a message: each event is in ``tracks`` and in its own table."""


class Opener:
    """Opens the file, and counts how often."""

    def __init__(self, path: Path) -> None:
        self._options = Options(f"duckdb:{path}")
        self.times = 0

    def open(self) -> DuckDbWarehouse:
        self.times += 1
        return warehouse.open_warehouse(self._options)


@pytest.fixture
def opener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    monkeypatch.setattr(warehouse, "_REOPEN_AFTER_ROWS", 3 * ROWS)
    return Opener(tmp_path / "warehouse.duckdb")


def message(number: int) -> Batch[EventView]:
    """The ``number``-th message of a partition, from 1."""
    events = [builders.track("Seen", message_id=f"{number}:{index}") for index in range(EVENTS)]
    return Batch(0, number, number, read_batch(EventBatch(events=events).SerializeToString()).events)


@contextlib.asynccontextmanager
async def watched(opener: Opener) -> AsyncIterator[Access]:
    access = Access(opener.open, lambda: None, (DEFAULT_TARGET,))
    await access.open()
    watching = asyncio.create_task(access.watch())
    yield access
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    access.close()


async def test_nothing_is_lost_or_loaded_twice_and_every_query_is_answered(opener: Opener) -> None:
    seen: list[int] = []

    async def ask(access: Access) -> None:
        while True:
            seen.append(sum((await access.read(lambda held: held.counts())).values()))

    async with watched(opener) as access:
        asking = asyncio.create_task(ask(access))
        last = 0
        while opener.times < 4:
            last += 1
            await loading(access).events([message(last)])
        await loading(access).events([message(number) for number in range(1, last + 1)])  # a second delivery
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        ids = [f"{number}:{index}" for number in range(1, last + 1) for index in range(EVENTS)]
        for table in ("seen", "tracks"):
            assert await column(access, f"select id from main.{table}") == sorted(ids)
        counts, positions = await access.write(lambda held: (dict(held.counts()), held.positions))
    assert counts == {LOADED: len(ids)}
    assert positions[StreamPartition("ENRICHED", 0)] == Position(last, last)
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


async def test_loads_go_on_while_it_waits_for_a_long_query(opener: Opener) -> None:
    asked, answered = threading.Event(), threading.Event()

    def long_query(_: object) -> str:
        asked.set()
        answered.wait()
        return "answer"

    async with watched(opener) as access:
        querying = asyncio.create_task(access.read(long_query))
        await asyncio.to_thread(asked.wait)
        try:
            for number in range(1, 4):
                await loading(access).events([message(number)])
            assert await access.write(lambda held: held.wants_reopening)
            await asyncio.sleep(1.5)  # it has looked, and waits
            await asyncio.wait_for(loading(access).events([message(4)]), 10)
            assert opener.times == 1
        finally:
            answered.set()
        assert await querying == "answer"
        await eventually(lambda: opener.times == 2)
        assert await column(access, "select count(*) from main.seen") == [4 * EVENTS]
