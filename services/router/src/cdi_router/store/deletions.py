"""Calls that tell destinations to delete people, in Postgres: ``deletion_orders`` (whom; what else is to be reported) and ``deletions``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import asyncpg

from cdi.consent.v1.consent_service_pb2 import Subject
from cdi.consent.v1.privacy_pb2 import PrivacyOrder, PrivacyStatus
from cdi.consent.v1.privacy_service_pb2 import ReportStepsRequest
from cdi_router.domain.deletion import RUNNING, Deletion, Forgotten, step_of
from cdi_router.domain.trials import Trials
from cdi_router.ports import Standings, Told
from cdi_runtime.store import Database, raw

_LOCK: Final = """
SELECT o.request_id, o.attempt, EXISTS (SELECT FROM deletions AS d WHERE d.request_id = o.request_id AND d.status = $2) AS running
FROM deletion_orders AS o WHERE o.request_id = ANY($1::text[]) ORDER BY o.request_id FOR UPDATE
"""
# Whoever writes begins with the orders, in one order, so that none waits for another in a circle.
_HOLD: Final = "SELECT FROM deletion_orders WHERE request_id = ANY($1::text[]) ORDER BY request_id FOR UPDATE"
_FORGET: Final = "DELETE FROM deletion_orders WHERE request_id = ANY($1::text[])"
_ADD: Final = """
INSERT INTO deletion_orders (request_id, attempt, person, steps)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bytea[], $4::bytea[])
ON CONFLICT (request_id) DO UPDATE SET attempt = excluded.attempt, steps = excluded.steps
"""
_ADD_CALLS: Final = """
INSERT INTO deletions (request_id, destination_id, due_time, status) SELECT *, $3, $4 FROM unnest($1::text[], $2::bigint[])
ON CONFLICT DO NOTHING
"""
# What has ended was counted under the telling before.
_GO_ON: Final = """
UPDATE deletions SET due_time = CASE WHEN status = $3 THEN least(due_time, $2) ELSE due_time END,
    done = CASE WHEN status = $3 THEN done ELSE 0 END
WHERE request_id = ANY($1::text[])
"""
_DUE: Final = "SELECT DISTINCT destination_id FROM deletions WHERE due_time <= $1"
_CLAIM: Final = """
WITH due AS (
    SELECT request_id, destination_id, due_time FROM deletions WHERE destination_id = $1 AND due_time <= $2
    ORDER BY due_time, request_id LIMIT $4 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE deletions AS d SET due_time = $3 FROM due WHERE d.request_id = due.request_id AND d.destination_id = due.destination_id
    RETURNING d.*, due.due_time AS was_due
)
SELECT c.*, o.person FROM claimed AS c JOIN deletion_orders AS o USING (request_id) ORDER BY c.was_due, c.request_id
"""
_SETTLE: Final = """
UPDATE deletions AS d SET due_time = k.due_time, status = k.status, detail = k.detail, done = k.done, attempts = k.attempts,
    counted_attempts = k.counted_attempts, first_attempt_time = k.first_attempt_time
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::text[], $6::integer[], $7::integer[], $8::integer[],
    $9::timestamptz[]) AS k (request_id, destination_id, due_time, status, detail, done, attempts, counted_attempts, first_attempt_time)
WHERE d.request_id = k.request_id AND d.destination_id = k.destination_id
"""
_STRIP: Final = """
UPDATE deletion_orders AS o SET person = '' WHERE request_id = ANY($1::text[])
    AND NOT EXISTS (SELECT FROM deletions AS d WHERE d.request_id = o.request_id AND d.status = $2)
"""
_STANDINGS: Final = """
SELECT o.request_id, o.attempt, o.steps, d.destination_id, d.status, d.detail, d.done, n.name
FROM deletion_orders AS o JOIN deletions AS d USING (request_id) JOIN destinations AS n USING (destination_id)
WHERE o.request_id = ANY($1::text[]) ORDER BY o.request_id, n.name
"""
_REPORTED: Final = """
UPDATE deletions AS d SET due_time = NULL FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS k (request_id, attempt, destination_id)
JOIN deletion_orders AS o ON o.request_id = k.request_id AND o.attempt = k.attempt
WHERE d.request_id = k.request_id AND d.destination_id = k.destination_id AND d.status <> $4
"""
_DONE: Final = """
DELETE FROM deletion_orders AS o USING unnest($1::text[], $2::integer[]) AS k (request_id, attempt)
WHERE o.request_id = k.request_id AND o.attempt = k.attempt
    AND NOT EXISTS (SELECT FROM deletions AS d WHERE d.request_id = o.request_id AND d.due_time IS NOT NULL)
"""


class PostgresDeletions:
    """``DeletionStore`` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, told: Sequence[Told], now: datetime) -> None:
        """See ``DeletionStore``."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            rows = await connection.fetch(_LOCK, [one.person.request_id for one in told], RUNNING)
            known = {row["request_id"]: row for row in rows}
            newest = {one.person.request_id: one for one in sorted(told, key=lambda one: one.attempt)}
            new = [one for key, one in newest.items() if key not in known or known[key]["attempt"] < one.attempt]
            running = [one.person.request_id for one in new if one.person.request_id in known and known[one.person.request_id]["running"]]
            await connection.execute(_FORGET, [key for one in new if (key := one.person.request_id) in known and key not in running])
            await connection.execute(_GO_ON, running, now, RUNNING)
            await connection.execute(
                _ADD,
                [one.person.request_id for one in new],
                [one.attempt for one in new],
                [_stored(one.person) for one in new],
                [ReportStepsRequest(steps=one.steps).SerializeToString() for one in new],
            )
            calls = [(one.person.request_id, destination_id) for one in new for destination_id in one.destination_ids]
            await connection.execute(_ADD_CALLS, [call[0] for call in calls], [call[1] for call in calls], now, RUNNING)

    async def due(self, now: datetime) -> Sequence[int]:
        """See ``DeletionStore``."""
        async with self._database.transaction() as transaction:
            return [row[0] for row in await raw(transaction).fetch(_DUE, now)]

    async def claim(self, destination_id: int, now: datetime, until: datetime, limit: int) -> Sequence[Deletion]:
        """See ``DeletionStore``."""
        async with self._database.transaction() as transaction:
            return [_deletion(row) for row in await raw(transaction).fetch(_CLAIM, destination_id, now, until, limit)]

    async def settle(self, deletions: Sequence[Deletion], now: datetime) -> None:
        """See ``DeletionStore``."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            await connection.execute(_HOLD, [one.person.request_id for one in deletions])
            await connection.execute(
                _SETTLE,
                [one.person.request_id for one in deletions],
                [one.destination_id for one in deletions],
                [now if one.has_ended else one.trials.due for one in deletions],
                [one.status for one in deletions],
                [one.detail for one in deletions],
                [one.done for one in deletions],
                [one.trials.attempts for one in deletions],
                [one.trials.counted_attempts for one in deletions],
                [one.trials.first_attempt for one in deletions],
            )
            await connection.execute(_STRIP, [one.person.request_id for one in deletions if one.has_ended], RUNNING)

    async def standings(self, request_ids: Sequence[str]) -> Sequence[Standings]:
        """See ``DeletionStore``."""
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_STANDINGS, list(request_ids))
        return [_standings(list(group)) for _, group in groupby(rows, lambda row: row["request_id"])]

    async def reported(self, standings: Sequence[Standings]) -> None:
        """See ``DeletionStore``."""
        ended = [(one.request_id, one.attempt, destination_id) for one in standings for destination_id in one.ended]
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            await connection.execute(_HOLD, [one.request_id for one in standings])
            await connection.execute(_REPORTED, [one[0] for one in ended], [one[1] for one in ended], [one[2] for one in ended], RUNNING)
            await connection.execute(_DONE, [one.request_id for one in standings], [one.attempt for one in standings])


def _stored(person: Forgotten) -> bytes:
    order = PrivacyOrder(workspace_id=person.workspace_id, profile_ids=person.profile_ids, attempt=person.attempt)
    order.subjects.extend(Subject(type=kind, id=value) for kind, value in person.subjects)
    return order.SerializeToString()


def _deletion(row: asyncpg.Record) -> Deletion:
    order = PrivacyOrder.FromString(row["person"])
    subjects = [(each.type, each.id) for each in order.subjects]
    person = Forgotten(row["request_id"], order.attempt, order.workspace_id, subjects, list(order.profile_ids))
    trials = Trials(row["was_due"], row["attempts"], row["counted_attempts"], row["first_attempt_time"])
    return Deletion(row["destination_id"], person, trials, row["done"], PrivacyStatus.ValueType(row["status"]), row["detail"])


def _standings(rows: Sequence[asyncpg.Record]) -> Standings:
    """All rows of one request."""
    steps = list(ReportStepsRequest.FromString(rows[0]["steps"]).steps)
    steps += [step_of(row["name"], PrivacyStatus.ValueType(row["status"]), row["done"], row["detail"]) for row in rows]
    return Standings(rows[0]["request_id"], rows[0]["attempt"], steps, [row["destination_id"] for row in rows if row["status"] != RUNNING])
