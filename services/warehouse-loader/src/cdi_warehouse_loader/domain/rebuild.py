"""Rebuilding a warehouse from the archive: how far it is, as positions that the warehouse itself stores with the rows.

A rebuild has bounds, fixed when it begins: the COLLECTED message up to which each partition was loaded then, and the last messages of
IDENTITY and REJECTED. What is not above them comes from the archive, what is above them from the streams, so the flow goes on meanwhile
and nothing comes twice. How far a rebuild is, is the ``event_seq`` of the next event that it takes, the ``seq`` of the next change of the
identity graph, and the time of the next rejection, each in a stream of its own name; each rebuild of a warehouse has a number.

The rows of ``rejected_events`` have no place in a stream, but an id, and never change; those of events that broke a load are nowhere else.
So that table is not emptied, but gets what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.layout import GRAPH_SEQUENCE_FACTOR, GRAPH_TABLES, SEQUENCE_FACTOR, Columns, filled_by_events
from cdi_warehouse_loader.domain.load import START, Position, StreamPartition
from cdi_warehouse_loader.domain.rows import Item

_PREFIX: Final = "rebuild:"
_BOUND: Final = "rebuild-bound:"
_CHANGES: Final = "rebuild-changes:"
_REJECTIONS: Final = "rebuild-rejections:"
_DONE: Final = 1
"""Source sequence of a rebuild that is over."""

CHANGES_FROM: Final = StreamPartition(StreamName.IDENTITY, 0)
REJECTIONS_FROM: Final = StreamPartition(StreamName.REJECTED, 0)

Positions = Mapping[StreamPartition, Position]


@dataclass(frozen=True, slots=True)
class Part:
    """What a rebuild brings of a stream other than that of events.

    Attributes:
        next: from where on rows are still to come: a ``seq``, or a time of rejection in microseconds since 1970.
        bound: the last message of the stream that was loaded when the rebuild began.
    """

    next: int
    bound: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One rebuild of a warehouse.

    Attributes:
        workspace_id: the workspace.
        warehouse: name of the warehouse.
        table: the only table that is rebuilt; empty: all.
        number: which rebuild of these it is, from 1.
        next: ``event_seq`` from which events are still to come.
        done: it is over.
        bounds: the last COLLECTED message of each partition that is rebuilt.
        changes: of the identity graph; ``None``: they fill none of its tables.
        rejections: the same of rejected events.
    """

    workspace_id: str
    warehouse: str
    table: str
    number: int
    next: int
    done: bool
    bounds: Mapping[int, int]
    changes: Part | None = None
    rejections: Part | None = None

    @property
    def messages(self) -> tuple[int, int]:
        """The message that comes next and the last one: of COLLECTED, unless other streams alone fill the table."""
        if self.changes and self.table:
            following, last = self.changes.next // GRAPH_SEQUENCE_FACTOR, self.changes.bound
        elif self.rejections and self.table:
            following, last = 0, self.rejections.bound
        else:
            following, last = self.next // SEQUENCE_FACTOR, max(self.bounds.values(), default=0)
        return (last + 1 if self.done else following), last

    @property
    def end(self) -> int:
        """Above the ``event_seq`` of every event of the rebuild."""
        return (max(self.bounds.values(), default=0) + 1) * SEQUENCE_FACTOR

    def covers(self, item: Item) -> bool:
        """Whether an event of the archive is not one that the stream brings."""
        _, partition, event_seq = item
        return event_seq // SEQUENCE_FACTOR <= self.bounds.get(partition, 0)

    def position(self, following: int, *, done: bool = False) -> Positions:
        """The position when events from this ``event_seq`` on come next."""
        return {StreamPartition(_PREFIX + self._name, self.number): Position(following, _DONE if done else 0)}

    def changes_position(self, following: int) -> Positions:
        """The position when changes from this ``seq`` on come next; none if it brings none."""
        return self._part(_CHANGES, self.changes, following)

    def rejections_position(self, following: int) -> Positions:
        """The position when what was rejected at this time or later comes next; none if it brings none."""
        return self._part(_REJECTIONS, self.rejections, following)

    def start(self) -> Positions:
        """The positions that begin it."""
        bounds = {StreamPartition(_BOUND + self._name, partition): Position(last, 0) for partition, last in self.bounds.items()}
        return {**bounds, **self.changes_position(0), **self.rejections_position(0), **self.position(self.next)}

    def _part(self, prefix: str, part: Part | None, following: int) -> Positions:
        return {StreamPartition(prefix + self._name, self.number): Position(following, part.bound)} if part else {}

    @property
    def _name(self) -> str:
        return "/".join((self.workspace_id, self.warehouse, self.table))


def rebuildable(tables: Mapping[str, Columns]) -> list[str]:
    """The tables of a schema that the archive can fill."""
    return [*filled_by_events(tables), *(table for table in (*GRAPH_TABLES, naming.REJECTED_EVENTS) if table in tables)]


def emptied(tables: Iterable[str]) -> list[str]:
    """Those of the tables that are empty when their rebuild has begun."""
    return [table for table in tables if table != naming.REJECTED_EVENTS]


def begin(positions: Positions, workspace_id: str, warehouse: str, table: str) -> Rebuild:
    """A new rebuild, with the bounds as the warehouse now stands."""
    before = [one.number for one in rebuilds(positions) if (one.workspace_id, one.warehouse, one.table) == (workspace_id, warehouse, table)]
    of_events = {where.partition: at.source_sequence for where, at in positions.items() if where.stream == StreamName.ENRICHED}
    is_of_changes, is_of_rejections = table in GRAPH_TABLES, table == naming.REJECTED_EVENTS
    return Rebuild(
        workspace_id,
        warehouse,
        table,
        number=max(before, default=0) + 1,
        next=1,
        done=False,
        bounds={} if is_of_changes or is_of_rejections else of_events,
        changes=Part(0, positions.get(CHANGES_FROM, START).sequence) if is_of_changes or not table else None,
        rejections=Part(0, positions.get(REJECTIONS_FROM, START).sequence) if is_of_rejections or not table else None,
    )


def rebuilds(positions: Positions) -> Sequence[Rebuild]:
    """All rebuilds that a warehouse knows of, the oldest first."""
    found: list[Rebuild] = []
    for where, at in sorted(positions.items()):
        if where.stream.startswith(_PREFIX):
            name = where.stream.removeprefix(_PREFIX)
            # A workspace's id may hold anything; the other two are names without a slash.
            workspace_id, warehouse, table = name.rsplit("/", 2)
            bounds = {key.partition: bound.sequence for key, bound in positions.items() if key.stream == _BOUND + name}
            changes, rejections = (
                _part_of(positions, StreamPartition(prefix + name, where.partition)) for prefix in (_CHANGES, _REJECTIONS)
            )
            done = at.source_sequence == _DONE
            found.append(Rebuild(workspace_id, warehouse, table, where.partition, at.sequence, done, bounds, changes, rejections))
    return found


def flows(partitions: int) -> list[StreamPartition]:
    """Where positions count that bounds are made of.

    Args:
        partitions: of the installation.
    """
    return [*(StreamPartition(StreamName.ENRICHED, partition) for partition in range(partitions)), REJECTIONS_FROM, CHANGES_FROM]


def reached(positions: Positions, rebuild: Rebuild) -> bool:
    """Whether an archive has everything up to the bounds."""

    def at(where: StreamPartition) -> Position:
        return positions.get(where, START)

    return (
        all(at(StreamPartition(StreamName.ENRICHED, partition)).source_sequence >= bound for partition, bound in rebuild.bounds.items())
        and (rebuild.changes is None or at(CHANGES_FROM).sequence >= rebuild.changes.bound)
        and (rebuild.rejections is None or at(REJECTIONS_FROM).sequence >= rebuild.rejections.bound)
    )


def _part_of(positions: Positions, where: StreamPartition) -> Part | None:
    at = positions.get(where)
    return Part(at.sequence, at.source_sequence) if at else None
