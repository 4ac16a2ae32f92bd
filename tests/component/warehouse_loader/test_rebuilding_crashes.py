"""A rebuild that dies between any two of its transactions, and goes on in a new process: every row is there once."""

import asyncio
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cdi.event.v1.event_pb2 import EventBatch
from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_testing import builders, eventually
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.loading import Loading
from cdi_warehouse_loader.application.plans import Plans
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.rebuilding import Rebuilding
from cdi_warehouse_loader.bootstrap import SystemClock
from cdi_warehouse_loader.clients import NoPlans, NoPurposes
from cdi_warehouse_loader.domain.batches import Batch
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, StreamPartition
from cdi_warehouse_loader.domain.load_size import LoadSize
from cdi_warehouse_loader.domain.rebuild import rebuilds
from cdi_warehouse_loader.ports import Warehouse

from . import engines
from .test_rebuilding import SIDE, change

T = TypeVar("T")
TABLES = ("tracks", "bought", *SIDE)
MESSAGES = (1, 2, 300)
"""So far apart that they are not brought in one window."""


class Died(BaseException):
    """Stands for kill -9: no code that is about failures meets it."""


class Mortal(Access):
    """Dies before one of its transactions, counted from when it is told."""

    lives: int | None = None

    async def write(self, work: Callable[[Warehouse], T]) -> T:
        if self.lives is not None:
            self.lives -= 1
            if self.lives == 0:
                raise Died
        return await super().write(work)


class Settled:
    """``Pending`` of readers that have settled everything."""

    async def messages(self, stream: str, reader: str) -> int:
        return 0

    async def is_past(self, where: StreamPartition, reader: str, sequence: int) -> bool:
        return True


async def opened(directory: Path) -> Mortal:
    access = Mortal(engines.duckdb(directory).open, lambda: None, (DEFAULT_TARGET,), archives=True)
    await access.open()
    return access


async def fill(access: Access) -> None:
    """Loads all kinds of messages, as they would come from the streams."""
    rules, plans = PurposeRules(NoPurposes(), access), Plans(NoPlans(), access)
    loading = Loading(access, rules, plans, SystemClock(), LoadSize(4_000))
    for number in MESSAGES:
        events = EventBatch(events=[builders.track("Bought", message_id=f"m{number}-{place}") for place in range(3)])
        at = builders.timestamp(builders.EVENT_TIME + timedelta(minutes=number))
        rejected = [RejectedEvent(rejection_id=f"r{number}", workspace_id=builders.WORKSPACE, rejected_time=at)]
        await loading.events([Batch(0, number, number, read_batch(events.SerializeToString()).events)])
        await loading.changes([Batch(0, number, 0, [change(number)])])
        await loading.rejected([Batch(0, number, 0, rejected)])
    timeless = RejectedEvent(rejection_id="timeless", workspace_id=builders.WORKSPACE)
    await loading.rejected([Batch(0, 3_000, 0, [timeless])])
    await access.write(lambda held: held.put_document(Document(builders.WORKSPACE, "late", (), "late", 1)))
    await access.refresh_targets()


def rows(held: Warehouse, schema: str) -> dict[str, list[Any]]:
    key = {"rejected_events": "rejection_id", "tracks": "id", "bought": "id"}
    names = {table: key.get(table, "seq") for table in TABLES}
    return {table: engines.rows(held, f"select {name} from {schema}.{table} order by 1") for table, name in names.items()}


async def test_whenever_a_rebuild_dies_it_goes_on_and_every_row_is_there_once(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    access = await opened(whole)
    await fill(access)
    expected = await access.read(lambda held: rows(held, "main"))
    assert [len(found) for found in expected.values()] == [9, 9, 3, 6, 6, 4]
    access.close()
    died = 0
    for lives in range(1, 200):
        found, has_died = await rebuilt(whole, tmp_path / str(lives), lives)
        assert found == expected, lives
        died += has_died
        if not has_died:
            break
    assert died > 15


async def rebuilt(whole: Path, copy: Path, lives: int) -> tuple[dict[str, list[Any]], bool]:
    """What a rebuild leaves that dies before its transaction number ``lives``, once the next process is through; and whether it died."""
    shutil.copytree(whole, copy)
    access = await opened(copy)
    await rebuilding(access).start(builders.WORKSPACE, "late", "")
    access.lives = lives
    has_died = await finished(access)
    access.close()
    access = await opened(copy)
    await finished(access)
    found = await access.read(lambda held: rows(held, "late"))
    access.close()
    shutil.rmtree(copy)
    return found, has_died


def rebuilding(access: Access) -> Rebuilding:
    return Rebuilding(Connections([Connection("main", "duckdb", "main", access)]), Settled(), 1, SystemClock())


async def finished(access: Access) -> bool:
    """Runs the rebuild until it is done, or dies; whether it died."""
    held = Connection("main", "duckdb", "main", access)
    rules, plans = PurposeRules(NoPurposes(), access), Plans(NoPlans(), access)
    running = asyncio.ensure_future(rebuilding(access).run(held, rules, plans))

    async def over() -> bool:
        if running.done():
            return True
        return all(one.done for one in await Access.write(access, lambda held: rebuilds(held.positions)))

    await eventually(over)
    died = running.done() and isinstance(running.exception(), Died)
    running.cancel()
    return died
