"""Rebuilding a warehouse from the archive: how far it is, as positions that the warehouse itself stores with the rows.

A rebuild has a bound, fixed when it begins: the COLLECTED message up to which each partition was loaded then. What is not above it comes
from the archive, what is above it from the stream, so the flow goes on meanwhile and no event comes twice. How far a rebuild is, is the
``event_seq`` of the next event that it takes, in a stream of its own name; each rebuild of a warehouse has a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain.layout import SEQUENCE_FACTOR
from cdi_warehouse_loader.domain.load import START, Position, StreamPartition
from cdi_warehouse_loader.domain.rows import Item

_PREFIX: Final = "rebuild:"
_BOUND: Final = "rebuild-bound:"
_DONE: Final = 1
"""Source sequence of a rebuild that is over."""

Positions = Mapping[StreamPartition, Position]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One rebuild of a warehouse.

    Attributes:
        workspace_id: the workspace.
        warehouse: name of the warehouse.
        table: the only table that is rebuilt; empty: all that events fill.
        number: which rebuild of these it is, from 1.
        next: ``event_seq`` from which events are still to come.
        done: it is over.
        bounds: the last COLLECTED message of each partition that is rebuilt.
    """

    workspace_id: str
    warehouse: str
    table: str
    number: int
    next: int
    done: bool
    bounds: Mapping[int, int]

    @property
    def last(self) -> int:
        """The last COLLECTED message of all."""
        return max(self.bounds.values(), default=0)

    @property
    def end(self) -> int:
        """Above the ``event_seq`` of every event of the rebuild."""
        return (self.last + 1) * SEQUENCE_FACTOR

    def covers(self, item: Item) -> bool:
        """Whether an event of the archive is not one that the stream brings."""
        _, partition, event_seq = item
        return event_seq // SEQUENCE_FACTOR <= self.bounds.get(partition, 0)

    def position(self, following: int, *, done: bool = False) -> Positions:
        """The position when events from this ``event_seq`` on come next."""
        return {StreamPartition(_PREFIX + self._name, self.number): Position(following, _DONE if done else 0)}

    def start(self) -> Positions:
        """The positions that begin it."""
        bounds = {StreamPartition(_BOUND + self._name, partition): Position(last, 0) for partition, last in self.bounds.items()}
        return {**bounds, **self.position(self.next)}

    @property
    def _name(self) -> str:
        return "/".join((self.workspace_id, self.warehouse, self.table))


def begin(positions: Positions, workspace_id: str, warehouse: str, table: str) -> Rebuild:
    """A new rebuild, with the bounds as the warehouse now stands."""
    before = [one.number for one in rebuilds(positions) if (one.workspace_id, one.warehouse, one.table) == (workspace_id, warehouse, table)]
    bounds = {where.partition: at.source_sequence for where, at in positions.items() if where.stream == StreamName.ENRICHED}
    return Rebuild(workspace_id, warehouse, table, max(before, default=0) + 1, 1, False, bounds)


def rebuilds(positions: Positions) -> Sequence[Rebuild]:
    """All rebuilds that a warehouse knows of, the oldest first."""
    found: list[Rebuild] = []
    for where, at in sorted(positions.items()):
        if where.stream.startswith(_PREFIX):
            name = where.stream.removeprefix(_PREFIX)
            # A workspace's id may hold anything; the other two are names without a slash.
            workspace_id, warehouse, table = name.rsplit("/", 2)
            bounds = {key.partition: bound.sequence for key, bound in positions.items() if key.stream == _BOUND + name}
            done = at.source_sequence == _DONE
            found.append(Rebuild(workspace_id, warehouse, table, where.partition, at.sequence, done, bounds))
    return found


def reached(positions: Positions, bounds: Mapping[int, int]) -> bool:
    """Whether an archive has everything up to the bounds."""
    at = {where.partition: position.source_sequence for where, position in positions.items() if where.stream == StreamName.ENRICHED}
    return all(at.get(partition, START.source_sequence) >= bound for partition, bound in bounds.items())
