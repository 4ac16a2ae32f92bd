"""The stored deliveries of people: found by looking at each event once, whatever the number of people, and deleted by their keys.

Few deliveries wait or were given up; an index of everybody's ids over them would cost more than a scan for the few who are erased.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_router.domain.filter import SUPPRESSED
from cdi_router.domain.owners import ids_of
from cdi_router.ports import Owner
from cdi_runtime.store import Database, raw

PARKED: Final = "parked_deliveries"
DEAD: Final = "dead_deliveries"
_PAGE: Final = 500
_Key = tuple[int, int, int, int]

_READ: Final = "SELECT destination_id, partition, sequence, position, event FROM {}"
_LOCK: Final = "SELECT 1 FROM progress WHERE destination_id = $1 AND partition = $2 FOR UPDATE"
_DELETE: Final = """
WITH gone AS (
    DELETE FROM {table} AS d USING unnest($3::bigint[], $4::integer[]) AS k (sequence, position)
    WHERE d.destination_id = $1 AND d.partition = $2 AND d.sequence = k.sequence AND d.position = k.position
    RETURNING d.sequence, d.position, d.message_id, {reason} AS reason
), told AS (
    INSERT INTO withheld_deliveries (destination_id, partition, sequence, position, message_id, reason, purposes)
    SELECT $1, $2, sequence, position, message_id, reason, ARRAY[]::text[] FROM gone ON CONFLICT DO NOTHING
)
SELECT sequence, position FROM gone
"""
_REASON: Final = {PARKED: f"'{SUPPRESSED}'", DEAD: "d.reason"}
"""Why what is deleted was not delivered; that much stays, so that ``ExplainDelivery`` does not take it for delivered."""

_FALL: Final = """
DELETE FROM barriers AS b WHERE destination_id = $1 AND partition = $2 AND NOT EXISTS (
    SELECT FROM parked_deliveries AS p WHERE p.destination_id = $1 AND p.partition = $2 AND p.person = b.person)
"""
_COUNT: Final = """
INSERT INTO outcome_counts AS c (destination_id, partition, outcome, reason, events) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (destination_id, partition, outcome, reason) DO UPDATE SET events = c.events + excluded.events
"""


class PostgresPersons:
    """The ``PersonStore`` on the router's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, owners: Sequence[Owner]) -> Sequence[Mapping[str, int]]:
        """See ``PersonStore``."""
        counts: list[dict[str, int]] = [{} for _ in owners]
        for table in (PARKED, DEAD):
            found: dict[tuple[int, int], dict[tuple[int, int], set[int]]] = defaultdict(dict)
            async for (destination_id, partition, sequence, position), _, numbers in self._read(table, owners):
                found[destination_id, partition][sequence, position] = numbers
            for where, keys in found.items():
                for key in await self._delete(table, where, list(keys)):
                    for number in keys[key]:
                        counts[number][table] = counts[number].get(table, 0) + 1
        return counts

    async def held(self, owner: Owner) -> AsyncIterator[tuple[str, Sequence[Event]]]:
        """See ``PersonStore``."""
        for table in (PARKED, DEAD):
            events: list[Event] = []
            async for _, event, _ in self._read(table, [owner]):
                events.append(event)
                if len(events) == _PAGE:
                    yield table, events
                    events = []
            yield table, events

    async def _read(self, table: str, owners: Sequence[Owner]) -> AsyncIterator[tuple[_Key, Event, set[int]]]:
        """The deliveries of a table that are of one of the owners, by number."""
        by_id: dict[tuple[str, tuple[str, str]], set[int]] = defaultdict(set)
        for number, owner in enumerate(owners):
            for one in owner.ids:
                by_id[owner.workspace_id, one].add(number)
        async with self._database.transaction() as transaction:
            async for row in raw(transaction).cursor(_READ.format(table), prefetch=_PAGE):
                event = Event.FromString(row["event"])
                received_us = event.received_time.ToMicroseconds()
                numbers = {number for one in ids_of(event) for number in by_id.get((event.workspace_id, one), ())}
                numbers = {number for number in numbers if received_us <= owners[number].before_us}
                if numbers:
                    yield (row["destination_id"], row["partition"], row["sequence"], row["position"]), event, numbers

    async def _delete(self, table: str, where: tuple[int, int], keys: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Deletes deliveries of one partition; those that were there."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            await connection.execute(_LOCK, *where)
            rows = await connection.fetch(
                _DELETE.format(table=table, reason=_REASON[table]), *where, [key[0] for key in keys], [key[1] for key in keys]
            )
            if table == PARKED and rows:
                await connection.execute(_FALL, *where)
                await connection.execute(_COUNT, *where, int(outcome_pb2.OUTCOME_SUPPRESSED), SUPPRESSED, len(rows))
        return [(row["sequence"], row["position"]) for row in rows]
