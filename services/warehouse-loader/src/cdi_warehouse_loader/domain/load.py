"""What one transaction of a warehouse does, as values: rows, new columns, counts and the stream position, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cdi.event.v1 import outcome_pb2
from cdi_warehouse_loader.domain.columns import ColumnType

Catalog = Mapping[str, Mapping[str, Mapping[str, ColumnType]]]
"""Column types by schema, table and column, as committed."""


class StreamPartition(NamedTuple):
    """Where a position counts."""

    stream: str
    partition: int


class Position(NamedTuple):
    """The last message of a partition whose rows are in the warehouse.

    Attributes:
        sequence: its sequence in the stream.
        source_sequence: the sequence of the message that it was made from, 0 if it has none. A message counts as new only when both
            are above the stored ones: the same result published a second time has a new sequence and an old source sequence.
    """

    sequence: int
    source_sequence: int

    def before(self, sequence: int, source_sequence: int) -> bool:
        """Whether a message with these sequences is new."""
        return sequence > self.sequence and (source_sequence == 0 or source_sequence > self.source_sequence)


START = Position(0, 0)


class CountKey(NamedTuple):
    """A line of the audit."""

    sink: str
    outcome: outcome_pb2.Outcome.ValueType
    reason: str


Discard = tuple[str, str, str, str, str, int]
"""A row of ``discards``: message id, table, column, value, reason, received (microseconds)."""


@dataclass(frozen=True, slots=True)
class TableLoad:
    """Rows for one table.

    Attributes:
        schema: schema of the table.
        table: name of the table; created with ``added`` when the catalog does not have it.
        rows: Arrow record batch; its columns all exist once ``added`` and ``widened`` are done.
        added: new columns.
        widened: integer columns that become double.
        merge_keys: empty to append; otherwise one row per key is kept, with the newest values by the column ``timestamp``.
        oldest_us: when the first event of the rows was received, microseconds since 1970; ``None`` where that is of no interest.
        row_count: rows that were loaded; 0 before.
        size: bytes of these rows in memory; 0 before.
    """

    schema: str
    table: str
    rows: Any
    added: Mapping[str, ColumnType] = field(default_factory=dict)
    widened: Sequence[str] = ()
    merge_keys: Sequence[str] = ()
    oldest_us: int | None = None
    row_count: int = 0
    size: int = 0

    def done(self) -> TableLoad:
        """The same without its rows, once they are loaded."""
        return self if self.rows is None else replace(self, rows=None, row_count=self.rows.num_rows, size=self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class Load:
    """One transaction.

    Attributes:
        stream: the stream that the rows came from.
        events: events in it, loaded or not.
        tables: rows by table. May be made while they are loaded: to be read once.
        positions: per partition, where the stream now stands.
        counts: what became of the events.
        clears: tables, by schema and name, that are emptied first.
    """

    stream: str
    events: int
    tables: Iterable[TableLoad]
    positions: Mapping[StreamPartition, Position]
    counts: Mapping[CountKey, int]
    clears: Sequence[tuple[str, str]] = ()


ColumnNeeds = tuple[tuple[str, frozenset[str]], ...]
"""Paths of members of an event, sorted, and the purposes that each needs."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place that events of a workspace are loaded into.

    Attributes:
        warehouse: its name.
        schema: schema that holds its tables.
        purposes: every one must be granted.
        columns: members that are loaded only where their purposes are granted.
        frozen_sources: sources whose events add nothing to the tables.
    """

    warehouse: str
    schema: str
    purposes: frozenset[str]
    columns: ColumnNeeds = ()
    frozen_sources: frozenset[str] = frozenset()

    @property
    def sink(self) -> str:
        """Its name in the audit."""
        return f"warehouse:{self.warehouse}"

    @property
    def takes_everybody(self) -> bool:
        """No purpose is asked for, so identifiers and traits may go there too: they come without the person's purposes."""
        return not self.purposes


DEFAULT_TARGET = Target("main", "main", frozenset())
"""Where a workspace without a warehouse document is loaded, in the loader's first connection."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the events of each workspace go in one connection.

    Attributes:
        named: by workspace.
        others: of all other workspaces.
        planned: by workspace, types of new columns by table and column.
    """

    named: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    others: Sequence[Target] = (DEFAULT_TARGET,)
    planned: Mapping[str, Mapping[str, Mapping[str, ColumnType]]] = field(default_factory=dict)

    def of(self, workspace_id: str) -> Sequence[Target]:
        """The targets of one workspace."""
        return self.named.get(workspace_id, self.others)
