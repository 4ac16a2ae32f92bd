"""Who loads a partition, and taking away what a process that died over a load has left.

A process claims a partition by a line of the chain before it loads it for the first time. From then on it is the only one that can
append a load of the partition; another one that is at it finds the claim in the chain instead of its own line. Rows carry the number of
their load, whose upper half is the session, so those of a session that ended, of loads that no line speaks of, are found and deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cdi_warehouse_loader.domain.load import Catalog, StreamPartition
from cdi_warehouse_loader.warehouses.clickhouse.chain import Chain, Change, Kind, Line, Said, another_was_there
from cdi_warehouse_loader.warehouses.clickhouse.connection import Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import LOAD, OWN, stored

_LOADS: Final = 1 << 32
"""Loads of one session."""

_REMEMBERED: Final = 50
"""Sessions of a partition that are looked at; a process that waits longer than so many restarts to die leaves rows that stay."""

_TABLES: Final = 100
"""Tables that one statement looks at."""


class Session:
    """This process, as the chain knows it.

    Args:
        connection: the loader's.
        chain: the chain.
    """

    def __init__(self, connection: Connection, chain: Chain) -> None:
        self._connection = connection
        self._chain = chain
        self._number = 0
        self._held: set[StreamPartition] = set()
        self._load = 0

    @property
    def first_load(self) -> int:
        """Below the number of every load of this session and of later ones, and above those of all earlier ones."""
        return self._number * _LOADS

    def drop(self) -> None:
        """Ends the session: something went wrong, and what it has left is to be looked for before the next load."""
        self._number, self._held = 0, set()

    def stops(self, line: Line, partitions: Iterable[StreamPartition]) -> bool:
        """Whether a line of another process forbids this one a load that was planned before."""
        said = line.said
        if line.kind is Kind.SNAPSHOT:
            return False
        theirs = {(stream, partition) for stream, partition, *_ in said.positions} | set(said.claimed)
        ended = self._number in said.ended
        return ended or line.kind in (Kind.TABLES, Kind.ERASURE) or not theirs.isdisjoint(partitions)

    def claim(self, partitions: Sequence[StreamPartition], catalog: Catalog) -> bool:
        """Makes sure that the partitions are this session's.

        Returns:
            Whether rows of a process that died were deleted, which the load may have been planned by.

        Raises:
            Unavailable: another process has been at them since.
        """
        missing = [one for one in partitions if one not in self._held]
        if self._number and not missing:
            return False
        before = sorted({session for one in missing for session in self._chain.claims.get(one, ())} - {self._number})[-_REMEMBERED:]
        said = Said(claimed=[(one.stream, one.partition) for one in missing], ended=before)
        number = self._chain.append(Kind.CLAIM, said, session=self._number, stops=lambda line: self.stops(line, partitions))
        if not self._number:
            self._number, self._load = number, number * _LOADS
        self._held.update(missing)
        return self._take_away(before, catalog)

    def next_load(self) -> int:
        """The number of a new load; the one that is higher wins where rows are the same."""
        self._load += 1
        return self._load

    def append_load(self, load: int, said: Said, partitions: Iterable[StreamPartition]) -> None:
        """Makes a load count.

        Raises:
            Unavailable: another process has been at its partitions or at tables, or has erased people.
        """
        self._chain.append(Kind.LOAD, said, session=self._number, load=load, stops=lambda line: self.stops(line, partitions))

    def append_changes(self, changes: Sequence[Change], partitions: Iterable[StreamPartition]) -> None:
        """Says that tables are going to change. The same faults as ``append_load``."""
        self._chain.append(Kind.TABLES, Said(changes=changes), stops=lambda line: self.stops(line, partitions))

    def catch_up(self, partitions: Iterable[StreamPartition]) -> None:
        """Sees what other processes have done.

        Raises:
            Unavailable: what a load of the partitions was planned by does not hold any more.
        """
        lines = self._chain.new_lines()
        if any(self.stops(line, partitions) for line in lines):
            self.drop()
            raise another_was_there()

    def _take_away(self, sessions: Sequence[int], catalog: Catalog) -> bool:
        if not sessions:
            return False
        rows = self._connection.rows(
            f"select session, max(load) from {OWN}.chain where kind = '{Kind.LOAD}' and session in %(sessions)s group by session",
            {"sessions": tuple(sessions)},
        )
        last = dict(rows)
        left = " or ".join(
            f"({LOAD} > {last.get(session, session * _LOADS)} and {LOAD} < {(session + 1) * _LOADS})" for session in sessions
        )
        places = [stored(schema, table) for schema, tables in catalog.items() for table in tables]
        found: list[int] = []
        for start in range(0, len(places), _TABLES):
            pieces = [
                f"select {number} as number, count() as hits from {place} where {left}"
                for number, place in enumerate(places[start : start + _TABLES], start)
            ]
            found += [number for number, hits in self._connection.rows(" union all ".join(pieces)) if hits]
        for number in found:
            self._connection.run(f"alter table {places[number]} delete where {left}")
        return bool(found)
