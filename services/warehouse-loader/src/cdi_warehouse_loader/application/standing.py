"""Where the streams of a warehouse stand, also if another process has loaded them last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.load import START, Load, Position, StreamPartition
from cdi_warehouse_loader.ports import Warehouse

_TRIES: Final = 5
T = TypeVar("T")


async def standing(access: Access, partitions: Collection[StreamPartition]) -> Mapping[StreamPartition, Position]:
    """Where partitions stand. Where several processes may load, a load that does nothing finds out whether this one knows it.

    Raises:
        Unavailable: the warehouse cannot now.
    """

    def look(held: Warehouse) -> Mapping[StreamPartition, Position]:
        at = believed(held, partitions)
        if not held.exclusive and partitions:
            held.load(Load(min(partitions).stream, 0, (), at, {}))
        return at

    return await told(access, look)


def believed(held: Warehouse, partitions: Collection[StreamPartition]) -> Mapping[StreamPartition, Position]:
    """Where a handle believes partitions to stand. A load with these positions is refused if it is wrong, and then knows better."""
    return {where: held.positions.get(where, START) for where in partitions}


async def told(access: Access, work: Callable[[Warehouse], T]) -> T:
    """Does work that rests on what the handle believes; again if that was wrong, since it knows better then.

    Raises:
        Unavailable: the warehouse cannot now.
    """
    for _ in range(_TRIES - 1):
        try:
            return await access.write(work)
        except Unavailable:
            continue
    return await access.write(work)
