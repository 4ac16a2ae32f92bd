"""Messages of which only a part is loaded yet, because the whole needs more memory than the warehouse has.

How far a part goes is a position of its own: the ``event_seq`` of its last event, in a stream of another name. Sequences rise, so an old
one leaves nothing of a later message out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain.load import START, Position, StreamPartition
from cdi_warehouse_loader.domain.rows import Item

_STREAM: Final = f"{StreamName.ENRICHED}:part"


def part_of(partition: int) -> StreamPartition:
    """Where the position of a part counts."""
    return StreamPartition(_STREAM, partition)


def without_parts(items: Sequence[Item], positions: Mapping[StreamPartition, Position]) -> Sequence[Item]:
    """The events that no part has brought."""
    if not any(where.stream == _STREAM for where in positions):
        return items
    return [item for item in items if item[2] > positions.get(part_of(item[1]), START).sequence]
