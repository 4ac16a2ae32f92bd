"""Rebuilds inside of the test's process, of any engine: what fills the warehouses, what is looked at after, and a process that dies."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
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
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, StreamPartition
from cdi_warehouse_loader.domain.load_size import LoadSize
from cdi_warehouse_loader.domain.rebuild import rebuilds
from cdi_warehouse_loader.ports import PurposeReader, Warehouse

from . import engines
from .test_rebuilding import SIDE, change

T = TypeVar("T")
OF_EVENTS = ("tracks", "bought", "identifies", "users", "accounts", "discards")
TABLES = (*OF_EVENTS, *SIDE)
PEOPLE = 3
NO_PURPOSES = NoPurposes()
_OF_THE_LOAD = ("loaded_at", "uuid_ts", "__load")


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


async def opened(place: engines.Place, *, archives: bool = False) -> Mortal:
    """A place as a process holds it."""
    access = Mortal(place.open, lambda: None, (DEFAULT_TARGET,), archives=archives)
    await access.open()
    return access


def loading(access: Access) -> Loading:
    """What loads messages."""
    return Loading(access, PurposeRules(NO_PURPOSES, access), Plans(NoPlans(), access), SystemClock(), LoadSize(4_000))


async def bring(access: Access, *numbers: int, workspace_id: str = builders.WORKSPACE, names: Sequence[str] = ("Bought",)) -> None:
    """Messages of these numbers, of all streams: somebody, one of ``PEOPLE``, who grants ``ads`` when the number is even.

    Args:
        access: the warehouse.
        numbers: of messages.
        workspace_id: the workspace.
        names: of each message's track events.
    """
    batches, changes, rejections = [], [], []
    for number in numbers:
        who, at = {"workspace_id": workspace_id, "user_id": f"u{number % PEOPLE}"}, builders.EVENT_TIME + timedelta(minutes=number)
        price = number if number % 2 else "much"
        events = [
            *(
                builders.track(name, message_id=f"{name}-{number}", properties={"price": price, "n": {"deep": number}}, at=at, **who)
                for name in names
            ),
            builders.identify(message_id=f"i{number}", traits={"email": f"{number}@example.com", "plan": f"plan {number}"}, at=at, **who),
            builders.group(message_id=f"g{number}", at=at, **who),
        ]
        for event in events:
            event.consent.granted_purposes.extend([] if number % 2 else ["ads"])
        rejected = RejectedEvent(
            rejection_id=f"r{number}",
            workspace_id=workspace_id,
            received_time=builders.timestamp(at),
            rejected_time=builders.timestamp(at),
            payload=f'{{"userId": "{who["user_id"]}"}}'.encode(),
        )
        batches.append(Batch(0, number, number, read_batch(EventBatch(events=events).SerializeToString()).events))
        changes.append(Batch(0, number, 0, [change(number, workspace_id)]))
        rejections.append(Batch(0, number, 0, [rejected]))
    loads = loading(access)
    await loads.events(batches)
    await loads.changes(changes)
    await loads.rejected(rejections)


async def state(access: Access, schema: str = "main") -> dict[str, list[Any]]:
    """The rows of a schema's tables, without what is of the load that brought them."""

    def look(held: Warehouse) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for table in TABLES:
            if table in held.catalog[schema]:
                rows = engines.records(held, f"select * from {schema}.{table}")
                found[table] = sorted(str({name: row[name] for name in sorted(row) if name not in _OF_THE_LOAD}) for row in rows)
        return found

    return await access.read(look)


async def column(access: Access, sql: str) -> list[Any]:
    """The values of the only column of a question, in order."""
    found = await access.read(lambda held: engines.rows(held, sql))
    return sorted((value for (value,) in found), key=str)


def connection(access: Access, name: str = "main") -> Connection:
    """What a loader knows of a place."""
    return Connection(name, "any", name, access)


def rebuilding(access: Access, source: Access | None = None) -> Rebuilding:
    """Rebuilds a place from an archive elsewhere, or from its own."""
    connections = [connection(access), *([connection(source, "archive")] if source else [])]
    return Rebuilding(Connections(connections), Settled(), 1, SystemClock())


async def finished(access: Access, source: Access | None = None, reader: PurposeReader = NO_PURPOSES) -> bool:
    """Runs rebuilds until they are done, or the process dies; whether it died."""
    rules, plans = PurposeRules(reader, access), Plans(NoPlans(), access)
    running = asyncio.ensure_future(rebuilding(access, source).run(connection(access), rules, plans))

    async def over() -> bool:
        if running.done():
            return True
        return all(one.done for one in await Access.write(access, lambda held: rebuilds(held.positions)))

    await eventually(over, within=120.0)
    died = running.done() and isinstance(running.exception(), Died)
    running.cancel()
    return died
