"""Privacy orders: erasing people from the tables, handing out what is held of one, and writing the file anew afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from typing import Final

from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_kernel.clock import Clock
from cdi_kernel.faults import Transient
from cdi_privacy import Holding, Step, done
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Erasure, PersonId
from cdi_warehouse_loader.domain.instants import micros

STORE: Final = "warehouse"
_LOOK_SECONDS: Final = 1.0
_Key = tuple[str, int]
_log = logger(__name__)


class Privacy:
    """The ``Keeper`` of all warehouses. An order is done when it is done in each of them; one that is down holds it up.

    Args:
        connections: the warehouses.
        clock: the time of an erasure.
    """

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self._erased: dict[tuple[str, _Key], Sequence[Step]] = {}

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``. What one warehouse has erased is remembered while another one is down: the orders come again."""
        results = await asyncio.gather(*(self._erase(connection, orders) for connection in self._connections), return_exceptions=True)
        for failed in (result for result in results if isinstance(result, BaseException)):
            raise failed
        steps = [self._erased.pop((connection.name, _key(order))) for order in orders for connection in self._connections]
        each = len(steps) // len(orders)
        return [list(chain.from_iterable(steps[start : start + each])) for start in range(0, len(steps), each)]

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``: rows of every table."""
        person = erasure_of(order)
        for connection in self._connections:
            async for holding in _holdings(connection.access, person):
                yield Holding(self._named(connection, holding.name), holding.rows)

    async def _erase(self, connection: Connection, orders: Sequence[PrivacyOrder]) -> None:
        new = [order for order in orders if (connection.name, _key(order)) not in self._erased]
        if not new:
            return
        counts = await erase(connection.access, [erasure_of(order) for order in new], self._clock.now_us())
        for order, each in zip(new, counts, strict=True):
            tables = [done(f"{STORE}:{self._named(connection, table)}", rows) for table, rows in sorted(each.items())]
            self._erased[connection.name, _key(order)] = tables or [done(f"{STORE}:{self._named(connection, '')}".rstrip(":/"), 0)]

    def _named(self, connection: Connection, table: str) -> str:
        """A table as people are told of it: with its connection unless that is the first one."""
        return table if connection is self._connections.first else f"{connection.name}/{table}"


async def erase(access: Access, erasures: Sequence[Erasure], now_us: int) -> Sequence[Mapping[str, int]]:
    """One pass over all tables for all people, or several with loads in between where there is very much to delete.

    Args:
        access: to the warehouse.
        erasures: of whom.
        now_us: the time.

    Returns:
        Rows by table, per erasure.
    """
    counts: list[Counter[str]] = [Counter() for _ in erasures]
    more = True
    while more:
        erased = await access.write(lambda warehouse: warehouse.erase(erasures, now_us))
        for total, part in zip(counts, erased.counts, strict=True):
            total.update(part)
        more = erased.more
    return counts


async def keep_rewriting(access: Access, clock: Clock, rewrite_after_seconds: float) -> None:
    """Writes a warehouse anew whenever erased rows have lain in it for long enough. Never returns.

    Args:
        access: to the warehouse.
        clock: the time.
        rewrite_after_seconds: how long they may lie there, unreadable.
    """
    while True:
        try:
            oldest_us = await access.write(lambda warehouse: warehouse.oldest_unrewritten_us())
            if oldest_us and clock.now_us() - oldest_us >= rewrite_after_seconds * 1_000_000:
                await access.rewrite()
                _log.info("warehouse.rewritten")
        except Transient as fault:
            _log.warning("warehouse.rewrite_waits", reason=fault.reason_name)
        await asyncio.sleep(_LOOK_SECONDS)


async def _holdings(access: Access, person: Erasure) -> AsyncIterator[Holding]:
    pieces: asyncio.Queue[Holding | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def take(table: str, rows: Sequence[bytes]) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, Holding(table, rows))

    reading = asyncio.ensure_future(access.read(lambda warehouse: warehouse.holdings(person, take)))
    reading.add_done_callback(lambda _: pieces.put_nowait(None))
    while (piece := await pieces.get()) is not None:
        yield piece
    await reading


def erasure_of(order: PrivacyOrder) -> Erasure:
    """What an order concerns."""
    ids = [PersonId(order.workspace_id, subject.type, subject.id) for subject in order.subjects if subject.id]
    ids += [PersonId(order.workspace_id, PROFILE_ID, profile_id) for profile_id in order.profile_ids]
    return Erasure(list(dict.fromkeys(ids)), micros(order.order_time) or 0)


def _key(order: PrivacyOrder) -> _Key:
    return order.request_id, order.attempt
