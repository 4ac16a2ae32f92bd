"""How far each partition has come, and what became of its events: one row and a few counters, moved in one transaction.

A partition's counters move only together with its progress, and only from the progress that the counting started at. So counts are
exact however often messages come again, and a replica that has lost its partition without noticing cannot count.

Who advanced a partition a moment ago knows where it stands; advancing checks it, so it is not read again for every batch.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import text

from cdi.event.v1 import outcome_pb2
from cdi_enrichment.ports import Advance, Position
from cdi_runtime.store import Database, StoreUnavailable, raw

_READ = "SELECT partition, sequence, stored_us FROM progress WHERE partition = ANY(:partitions)"
_MOVE = """
    INSERT INTO progress (partition, sequence, stored_us)
    SELECT m.partition, m.sequence, m.stored_us
    FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS m (partition, sequence, stored_us)
    ON CONFLICT (partition) DO UPDATE SET sequence = excluded.sequence, stored_us = excluded.stored_us
    WHERE progress.sequence = ($4::bigint[])[array_position($1::smallint[], progress.partition)]
"""
_COUNT = """
    INSERT INTO outcome_counts (partition, outcome, reason, events)
    SELECT * FROM unnest($1::smallint[], $2::smallint[], $3::text[], $4::bigint[])
    ON CONFLICT (partition, outcome, reason) DO UPDATE SET events = outcome_counts.events + excluded.events
"""
_SUM = "SELECT outcome, reason, sum(events)::bigint AS events FROM outcome_counts GROUP BY outcome, reason ORDER BY outcome, reason"
SINK = "enrichment"


_KNOWN_SECONDS: Final = 1.0
"""How long a position is trusted after this replica reached it. What it costs to be wrong is one batch handled twice."""


class ProgressStore:
    """Progress and counts per partition."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, tuple[float, Position]] = {}

    async def read(self, partitions: Collection[int]) -> dict[int, Position]:
        """The progress of partitions; one that never moved is missing."""
        oldest = time.monotonic() - _KNOWN_SECONDS
        known = {p: reached[1] for p in partitions if (reached := self._known.get(p)) is not None and reached[0] > oldest}
        if len(known) == len(partitions):
            return known
        async with self._database.transaction() as connection:
            rows = await connection.execute(text(_READ), {"partitions": list(partitions)})
            return {row.partition: Position(row.sequence, row.stored_us) for row in rows}

    async def advance(self, moves: Mapping[int, Advance]) -> None:
        """Moves partitions forward and adds their counts, all or nothing.

        Raises:
            StoreUnavailable: nothing moved, or it is not known; also when another replica has moved a partition meanwhile.
        """
        if not moves:
            return
        partitions = sorted(moves)
        counts = [(p, outcome, reason, n) for p in partitions for (outcome, reason), n in sorted(moves[p].counts.items()) if n]
        for partition in partitions:
            self._known.pop(partition, None)
        async with self._database.transaction() as connection:
            driver = raw(connection)
            status = await driver.execute(
                _MOVE,
                partitions,
                [moves[p].after.sequence for p in partitions],
                [moves[p].after.stored_us for p in partitions],
                [moves[p].before.sequence for p in partitions],
            )
            if status != f"INSERT 0 {len(partitions)}":
                raise StoreUnavailable("another replica has moved this partition")
            if counts:
                await driver.execute(_COUNT, *(list(column) for column in zip(*counts, strict=True)))
        reached = time.monotonic()
        self._known.update((partition, (reached, moves[partition].after)) for partition in partitions)

    async def count_outcomes(self) -> list[outcome_pb2.OutcomeCount]:
        """What became of all events since the installation began."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(text(_SUM))
            return [outcome_pb2.OutcomeCount(sink=SINK, outcome=row.outcome, reason=row.reason, events=row.events) for row in rows]
