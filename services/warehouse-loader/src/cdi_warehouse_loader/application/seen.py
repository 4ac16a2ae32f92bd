"""What a load was planned by. Between planning and loading, other work in the same thread may have looked at the warehouse anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.load import Position, StreamPartition
from cdi_warehouse_loader.ports import Warehouse


@dataclass(frozen=True, slots=True)
class Seen:
    """What decides which messages are new and whose events may come.

    Attributes:
        positions: of the partitions of a load; one without a position is missing.
        newest_erasure_us: see ``ports.Warehouse``.
    """

    positions: Mapping[StreamPartition, Position]
    newest_erasure_us: int

    @classmethod
    def of(cls, held: Warehouse, partitions: Iterable[StreamPartition]) -> Seen:
        """How a warehouse stands, as its handle knows."""
        return cls({where: held.positions[where] for where in partitions if where in held.positions}, held.newest_erasure_us)

    def check(self, held: Warehouse, partitions: Iterable[StreamPartition]) -> None:
        """Whether the handle still knows the same. That the warehouse itself does is for ``load`` to see.

        Raises:
            Unavailable: it does not; what was planned has to be planned anew.
        """
        if self != Seen.of(held, partitions):
            raise Unavailable("warehouse", "another process has loaded or erased since this load was planned", retry_after=0.1)
