"""Privacy orders: erasing people from the tables, handing out what is held of one, and writing the file anew afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_kernel.clock import Clock
from cdi_kernel.faults import Transient
from cdi_privacy import Holding, Step, done
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Erasure, PersonId
from cdi_warehouse_loader.domain.instants import micros

STORE: Final = "warehouse"
_LOOK_SECONDS: Final = 1.0
_log = logger(__name__)


class Privacy:
    """The ``Keeper`` of the warehouse.

    Args:
        access: the warehouse.
        clock: the time of an erasure.
        rewrite_after_seconds: how long erased rows may lie in the file before it is written anew.
    """

    def __init__(self, access: Access, clock: Clock, rewrite_after_seconds: float) -> None:
        self._access = access
        self._clock = clock
        self._rewrite_after_us = round(rewrite_after_seconds * 1_000_000)

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``: one pass over all tables for all orders, or several with loads in between where there is very much to delete."""
        erasures = [erasure_of(order) for order in orders]
        now_us = self._clock.now_us()
        counts: list[Counter[str]] = [Counter() for _ in orders]
        more = True
        while more:
            erased = await self._access.write(lambda warehouse: warehouse.erase(erasures, now_us))
            for total, part in zip(counts, erased.counts, strict=True):
                total.update(part)
            more = erased.more
        return [[done(f"{STORE}:{table}", rows) for table, rows in sorted(each.items())] or [done(STORE, 0)] for each in counts]

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``: rows of every table."""
        pieces: asyncio.Queue[Holding | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def take(table: str, rows: Sequence[bytes]) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, Holding(table, rows))

        person = erasure_of(order)
        reading = asyncio.ensure_future(self._access.read(lambda warehouse: warehouse.holdings(person, take)))
        reading.add_done_callback(lambda _: pieces.put_nowait(None))
        while (piece := await pieces.get()) is not None:
            yield piece
        await reading

    async def keep_rewriting(self) -> None:
        """Writes the file anew whenever erased rows have lain in it for long enough. Never returns."""
        while True:
            try:
                oldest_us = await self._access.write(lambda warehouse: warehouse.oldest_unrewritten_us())
                if oldest_us and self._clock.now_us() - oldest_us >= self._rewrite_after_us:
                    await self._access.rewrite()
                    _log.info("warehouse.rewritten")
            except Transient as fault:
                _log.warning("warehouse.rewrite_waits", reason=fault.reason_name)
            await asyncio.sleep(_LOOK_SECONDS)


def erasure_of(order: PrivacyOrder) -> Erasure:
    """What an order concerns."""
    ids = [PersonId(order.workspace_id, subject.type, subject.id) for subject in order.subjects if subject.id]
    ids += [PersonId(order.workspace_id, PROFILE_ID, profile_id) for profile_id in order.profile_ids]
    return Erasure(list(dict.fromkeys(ids)), micros(order.order_time) or 0)
