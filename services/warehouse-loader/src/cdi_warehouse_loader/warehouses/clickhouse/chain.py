"""The chain of commits: what stands for transactions, which ClickHouse does not have.

A line is one row of ``_cdi.commits``, inserted at once, with the number after the last one. The server takes one line of a number: the
number is the token by which it knows an insert that it has seen, so of two processes that append at once one finds its line there, and the
other one finds somebody else's, sees what that changed, and takes the next number or gives up. What a load has put into tables counts from
its line on; positions and counts are nowhere but in lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final
from uuid import uuid4

import msgspec
import pyarrow as pa

from cdi.event.v1 import outcome_pb2
from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.load import CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import LoadEntry
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import OWN

Change = tuple[str, str, str, str, str]


class Kind(StrEnum):
    """What a line says."""

    LOAD = "load"
    CLAIM = "claim"
    TABLES = "tables"
    ERASURE = "erasure"
    SNAPSHOT = "snapshot"


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a line changes.

    Attributes:
        positions: stream, partition and position, of a load or, in a snapshot, of all.
        counts: sink, outcome, reason and events: of a load or, in a snapshot, of all before.
        claimed: partitions that the line's session loads from now on.
        ended: sessions that load nothing any more.
        changes: of tables.
        erased_us: when people were erased.
        log: stream, milliseconds, events, rows, bytes and tables of a load.
    """

    positions: Sequence[tuple[str, int, int, int]] = ()
    counts: Sequence[tuple[str, int, str, int]] = ()
    claimed: Sequence[tuple[str, int]] = ()
    ended: Sequence[int] = ()
    changes: Sequence[Change] = ()
    erased_us: int = 0
    log: tuple[str, float, int, int, int, int] | None = None


class Line(msgspec.Struct, frozen=True):
    """A line of the chain; ``at_us``: when the server took it."""

    number: int
    mark: str
    kind: Kind
    session: int
    load: int
    said: Said
    at_us: int


_COLUMNS: Final = "number, mark, kind, session, load, said, toUnixTimestamp64Micro(at)"
_SNAPSHOT: Final = f"(select max(number) from {OWN}.commits where kind = '{Kind.SNAPSHOT}')"
_STANDING: Final = f"""select {_COLUMNS} from {OWN}.chain
    where number >= {_SNAPSHOT} or kind in ('{Kind.CLAIM}', '{Kind.ERASURE}') order by number"""
_AFTER: Final = f"select {_COLUMNS} from {OWN}.chain where number > %(number)s order by number"
_COUNTED: Final = f"select {_COLUMNS} from {OWN}.chain where number >= {_SNAPSHOT} and number <= %(number)s order by number"
_OLD: Final = f"""number < %(number)s and kind = '{Kind.LOAD}' and at < now() - interval 14 day
    and load not in (select max(load) from {OWN}.commits where kind = '{Kind.LOAD}' group by session)"""
_LAST: Final = 2**63 - 1


class Chain:
    """The chain as this process last saw it.

    Args:
        connection: the loader's.

    Attributes:
        number: of the last line.
        positions: how far each partition is loaded.
        claims: the sessions that have ever loaded a partition, oldest first.
        newest_erasure_us: when people were last erased; 0: never.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.number = 0
        self.positions: dict[StreamPartition, Position] = {}
        self.claims: dict[StreamPartition, list[int]] = {}
        self.newest_erasure_us = 0
        for line in _read(connection, _STANDING):
            self._take(line)

    def new_lines(self) -> Sequence[Line]:
        """Lines since the last one that was seen."""
        lines = _read(self._connection, _AFTER, self.number)
        for line in lines:
            self._take(line)
        return lines

    def append(self, kind: Kind, said: Said, *, session: int = 0, load: int = 0, stops: Callable[[Line], bool] = lambda _: False) -> int:
        """Appends a line; its number.

        Args:
            kind: what it says.
            said: what it changes.
            session: of a load or claim; a claim without one opens one, whose number is the line's.
            load: number of a load.
            stops: whether a line that another process has appended meanwhile forbids this one.

        Raises:
            Unavailable: one does; nothing was appended.
        """
        while True:
            number, mark = self.number + 1, uuid4().hex
            row = {
                "number": pa.array([number], pa.uint64()),
                "mark": [mark],
                "kind": [kind.value],
                "session": pa.array([session or number], pa.uint64()),
                "load": pa.array([load], pa.uint64()),
                "said": [msgspec.json.encode(said).decode()],
            }
            self._connection.insert(f"{OWN}.commits", pa.record_batch(row), token=str(number))
            stopped = False
            for line in _read(self._connection, _AFTER, self.number):
                self._take(line)
                if line.mark == mark:  # lines after it wait until the chain is looked at again, to be judged then
                    return number
                stopped = stopped or stops(line)
            if stopped:
                raise another_was_there()

    def counts(self) -> dict[CountKey, int]:
        """What became of all events."""
        return counts(self._connection, self.number)

    def fold(self) -> None:
        """Sums up what all lines say in one, so that the others need not be read again, and forgets loads of two weeks ago."""
        positions = [(*where, *at) for where, at in self.positions.items()]
        summed = [(key.sink, int(key.outcome), key.reason, events) for key, events in self.counts().items()]
        # A line that came in between is not in the sum, so this one is not appended.
        number = self.append(Kind.SNAPSHOT, Said(positions=positions, counts=summed), stops=lambda _: True)
        ((old,),) = self._connection.rows(f"select count() from {OWN}.commits where {_OLD}", {"number": number})
        if old:
            self._connection.run(f"alter table {OWN}.commits delete where {_OLD}", {"number": number})

    def _take(self, line: Line) -> None:
        self.number = max(self.number, line.number)
        for stream, partition, sequence, source_sequence in line.said.positions:
            self.positions[StreamPartition(stream, partition)] = Position(sequence, source_sequence)
        for stream, partition in line.said.claimed:
            self.claims.setdefault(StreamPartition(stream, partition), []).append(line.session)
        self.newest_erasure_us = max(self.newest_erasure_us, line.said.erased_us)


def another_was_there() -> Unavailable:
    """The load was planned before another process changed what it rests on."""
    return Unavailable(DEPENDENCY, "another process has loaded, erased or changed tables meanwhile")


def counts(connection: Connection, until: int = _LAST) -> dict[CountKey, int]:
    """What became of all events, by the lines up to a number."""
    summed: dict[CountKey, int] = {}
    for line in _read(connection, _COUNTED, until):
        for sink, outcome, reason, events in line.said.counts:
            key = CountKey(sink, outcome_pb2.Outcome.ValueType(outcome), reason)
            summed[key] = summed.get(key, 0) + events
    return summed


def loads(connection: Connection, limit: int) -> list[LoadEntry]:
    """The newest loads."""
    lines = _read(
        connection,
        f"""select {_COLUMNS} from {OWN}.chain where kind = '{Kind.LOAD}' and at > now() - interval 14 day
        order by number desc limit %(number)s""",
        limit,
    )
    entries = []
    for line in lines:
        if line.said.log is not None:
            stream, milliseconds, events, rows, size, tables = line.said.log
            entries.append(LoadEntry(stream, line.at_us, milliseconds, events, rows, size, tables))
    return entries


def changes(connection: Connection) -> Iterable[tuple[int, Change]]:
    """Changes of tables with their time, oldest first; one that a process died over, and another one did again, once."""
    known: set[Change] = set()
    for line in _read(connection, f"select {_COLUMNS} from {OWN}.chain where kind = '{Kind.TABLES}' order by number"):
        for change in line.said.changes:
            if change not in known:
                known.add(change)
                yield line.at_us, change


def _read(connection: Connection, statement: str, number: int = 0) -> list[Line]:
    return [
        Line(row[0], row[1], Kind(row[2]), row[3], row[4], msgspec.json.decode(row[5], type=Said), row[6])
        for row in connection.rows(statement, {"number": number})
    ]
