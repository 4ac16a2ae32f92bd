"""What arrives: batches of one stream with their place in it, and which of them are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cdi_warehouse_loader.domain.load import START, Position, StreamPartition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """One message of a stream.

    Attributes:
        partition: of the topology; 0 on a stream without partitions.
        sequence: in the stream.
        source_sequence: sequence of the message that it was made from; 0 if it has none.
        events: what it holds.
    """

    partition: int
    sequence: int
    source_sequence: int
    events: Sequence[T]


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """The batches that are not in the warehouse yet, and where their partitions stand with them."""

    batches: Sequence[Batch[T]]
    positions: Mapping[StreamPartition, Position]


def fresh(stream: str, batches: Sequence[Batch[T]], stored: Mapping[StreamPartition, Position]) -> Fresh[T]:
    """Leaves out what was loaded before: redelivered messages, and the same source published a second time.

    Args:
        stream: the stream.
        batches: per partition in stream order.
        stored: positions as committed.
    """
    kept: list[Batch[T]] = []
    positions: dict[StreamPartition, Position] = {}
    for batch in batches:
        where = StreamPartition(stream, batch.partition)
        at = positions.get(where) or stored.get(where, START)
        if at.before(batch.sequence, batch.source_sequence):
            kept.append(batch)
            positions[where] = Position(batch.sequence, batch.source_sequence or at.source_sequence)
    return Fresh(kept, positions)
