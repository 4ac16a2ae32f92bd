"""What a new warehouse has to know before its first event: who was erased while it was not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_kernel.clock import Clock
from cdi_kernel.topology import StreamName
from cdi_privacy import erases
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.privacy import erase, erasure_of
from cdi_warehouse_loader.domain.erasure import Erasure
from cdi_warehouse_loader.domain.load import START, Load, Position, StreamPartition

_AT: Final = StreamPartition(StreamName.PRIVACY, 0)
_TOGETHER: Final = 500


async def learn_erasures(access: Access, orders: AsyncIterator[bytes], clock: Clock) -> None:
    """Leaves the tombstones of all orders that the stream still holds, once in the life of a warehouse.

    The streams that a new warehouse is filled from are not older than these orders. What is ordered from now on comes to the loader anyway.

    Args:
        access: to the warehouse, which is open.
        orders: what the messages of PRIVACY hold.
        clock: the time.

    Raises:
        Unavailable: the warehouse cannot now; it is to be done again.
    """
    if await access.write(lambda warehouse: warehouse.positions.get(_AT, START)) != START:
        return
    found: list[Erasure] = []
    async for body in orders:
        order = PrivacyOrder.FromString(body)
        if erases(order):
            found.append(erasure_of(order))
        if len(found) >= _TOGETHER:
            await erase(access, found, clock.now_us())
            found.clear()
    if found:
        await erase(access, found, clock.now_us())
    learnt = Load(StreamName.PRIVACY, 0, (), {_AT: Position(1, 0)}, {})
    await access.write(lambda warehouse: warehouse.load(learnt))
