"""What is read about deliveries: dead ones, the trace of one event, counts."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from cdi.event.v1 import outcome_pb2
from cdi_router.domain.explanation import Fate, NotMade
from cdi_router.ports import Count, DeadRow
from cdi_runtime.store import Database, raw

_DEAD = """
SELECT d.delivery_id, d.message_id, d.reason, d.response_status, d.response_body, d.attempts, d.first_attempt_time, d.dead_time,
    d.request_body, n.name
FROM dead_deliveries AS d JOIN destinations AS n USING (destination_id)
WHERE n.workspace_id = $1 AND ($2 = '' OR n.name = $2) AND ($3 = '' OR d.delivery_id < $3)
ORDER BY d.delivery_id DESC LIMIT $4
"""
_FATE = """
SELECT n.destination_id, g.sequence, g.first_sequence,
    d.reason AS dead_reason, d.response_status AS dead_status, d.attempts AS dead_attempts,
    w.reason AS withheld_reason, w.purposes, w.decision_ids, w.withhold_time,
    p.message_id IS NOT NULL AS parked, b.attempts, b.due_time, b.response_status,
    NOT EXISTS (SELECT FROM parked_deliveries AS e WHERE e.destination_id = n.destination_id AND e.partition = $2
        AND e.person = p.person AND (e.sequence, e.position) < (p.sequence, p.position)) AS earliest
FROM destinations AS n
LEFT JOIN progress AS g ON g.destination_id = n.destination_id AND g.partition = $2
LEFT JOIN dead_deliveries AS d
    ON d.destination_id = n.destination_id AND d.partition = $2 AND d.sequence = $3 AND d.message_id = $4
LEFT JOIN withheld_deliveries AS w
    ON w.destination_id = n.destination_id AND w.partition = $2 AND w.sequence = $3 AND w.message_id = $4
LEFT JOIN parked_deliveries AS p
    ON p.destination_id = n.destination_id AND p.partition = $2 AND p.sequence = $3 AND p.message_id = $4
LEFT JOIN barriers AS b ON b.destination_id = n.destination_id AND b.partition = $2 AND b.person = p.person
WHERE n.workspace_id = $1
"""
_COUNTS = """
SELECT n.name, c.outcome, c.reason, sum(c.events)::bigint AS events
FROM outcome_counts AS c JOIN destinations AS n USING (destination_id) GROUP BY 1, 2, 3
UNION ALL
SELECT n.name, $1::integer, '', count(*) FROM parked_deliveries JOIN destinations AS n USING (destination_id) GROUP BY 1
ORDER BY 1, 2, 3
"""


class Reports:
    """Reads; never writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def dead(self, workspace_id: str, destination: str, before: str, limit: int) -> Sequence[DeadRow]:
        """Given-up deliveries, newest first, those older than the id ``before``; an empty destination means all."""
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_DEAD, workspace_id, destination, before, limit)
        return [
            DeadRow(
                row["delivery_id"],
                row["name"],
                row["message_id"],
                row["reason"],
                row["response_status"],
                row["response_body"],
                row["attempts"],
                row["first_attempt_time"],
                row["dead_time"],
                row["request_body"],
            )
            for row in rows
        ]

    async def fates(self, workspace_id: str, partition: int, sequence: int, message_id: str) -> Sequence[Fate]:
        """What is known of one event, per destination of the workspace.

        Args:
            workspace_id: the event's.
            partition: the event's.
            sequence: of the ENRICHED message that holds it.
            message_id: the event's.
        """
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_FATE, workspace_id, partition, sequence, message_id)
        return [
            Fate(
                row["destination_id"],
                row["sequence"] or 0,
                row["first_sequence"],
                (row["dead_reason"], row["dead_status"], row["dead_attempts"]) if row["dead_reason"] is not None else None,
                _withheld(row) if row["withheld_reason"] is not None else None,
                (row["attempts"] or 0, row["due_time"], row["response_status"] or 0, row["earliest"]) if row["parked"] else None,
            )
            for row in rows
        ]

    async def counts(self) -> Sequence[Count]:
        """Ended events per destination, outcome and reason, and those that wait now."""
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_COUNTS, outcome_pb2.OUTCOME_PARKED)
        return [Count(row["name"], row["outcome"], row["reason"], row["events"]) for row in rows]


def _withheld(row: asyncpg.Record) -> NotMade:
    return NotMade(row["withheld_reason"], row["withhold_time"], tuple(row["purposes"]), tuple(row["decision_ids"]))
