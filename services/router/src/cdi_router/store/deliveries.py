"""Deliveries in Postgres: progress, waiting events, barriers, dead and withheld deliveries, counts.

Every transaction that writes starts with the partition's row of ``progress``, which is therefore its lock: a barrier cannot fall while
an event is parked behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TypeAlias

import asyncpg

from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_kernel.ids import uuid7
from cdi_router.domain.answer import Answer
from cdi_router.domain.delivery import Barrier, Delivery, Key, Progress, Settlement, Withheld
from cdi_router.domain.filter import CONSENT_DENIED, SUPPRESSED
from cdi_router.domain.trials import Trials
from cdi_router.ports import Queue, Standing
from cdi_runtime.store import Database, raw

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Counts = dict[tuple[int, str], int]

_STANDING = """
SELECT sequence, source_sequence, ARRAY(SELECT person FROM barriers WHERE destination_id = $1 AND partition = $2) AS barred
FROM progress WHERE destination_id = $1 AND partition = $2
"""
_BEGIN = "INSERT INTO progress (destination_id, partition) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_ADVANCE = """
UPDATE progress SET sequence = $5, source_sequence = $6, first_sequence = coalesce(first_sequence, $7)
WHERE destination_id = $1 AND partition = $2 AND sequence = $3 AND source_sequence = $4
"""
_LOCK = "SELECT 1 FROM progress WHERE destination_id = $1 AND partition = $2 FOR UPDATE"
_PARK = """
INSERT INTO parked_deliveries (destination_id, partition, sequence, position, person, message_id, event)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::integer[], $5::bytea[], $6::text[], $7::bytea[])
"""
_BAR = """
INSERT INTO barriers (destination_id, partition, person, due_time, alone, attempts, counted_attempts, first_attempt_time,
    response_status, response_failure)
SELECT $1, $2, * FROM unnest($3::bytea[], $4::timestamptz[], $5::boolean[], $6::integer[], $7::integer[], $8::timestamptz[],
    $9::integer[], $10::text[])
ON CONFLICT (destination_id, partition, person) DO
"""
_BAR_NEW = _BAR + " NOTHING"
_BAR_AGAIN = (
    _BAR
    + """ UPDATE SET due_time = excluded.due_time, alone = excluded.alone, attempts = excluded.attempts,
    counted_attempts = excluded.counted_attempts, first_attempt_time = excluded.first_attempt_time,
    response_status = excluded.response_status, response_failure = excluded.response_failure"""
)
_BURY = """
INSERT INTO dead_deliveries (destination_id, partition, sequence, position, delivery_id, message_id, event, reason, response_status,
    response_body, request_body, attempts, first_attempt_time, dead_time)
SELECT $1, $2, d.*, now() FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::integer[],
    $10::text[], $11::bytea[], $12::integer[], $13::timestamptz[]) AS d
ON CONFLICT DO NOTHING
"""
_WITHHOLD = """
INSERT INTO withheld_deliveries (destination_id, partition, sequence, position, message_id, reason, purposes, decision_ids)
SELECT $1, $2, w.sequence, w.position, w.message_id, w.reason, string_to_array(w.purposes, E'\\x1f'), string_to_array(w.decision_ids, ' ')
FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS w (sequence, position, message_id, reason, purposes, decision_ids)
ON CONFLICT DO NOTHING
"""
_COUNT = """
INSERT INTO outcome_counts AS c (destination_id, partition, outcome, reason, events)
SELECT $1, $2, * FROM unnest($3::integer[], $4::text[], $5::bigint[])
ON CONFLICT (destination_id, partition, outcome, reason) DO UPDATE SET events = c.events + excluded.events
"""
_DUE = """
SELECT DISTINCT partition FROM barriers WHERE destination_id = $1 AND partition = ANY($2::integer[]) AND due_time <= $3
"""
_QUEUES = """
SELECT b.*, p.sequence, p.position, p.event
FROM (SELECT * FROM barriers WHERE destination_id = $1 AND partition = $2 AND due_time <= $3 ORDER BY due_time LIMIT $4) AS b
CROSS JOIN LATERAL (
    SELECT sequence, position, event FROM parked_deliveries
    WHERE destination_id = $1 AND partition = $2 AND person = b.person
    ORDER BY sequence, position LIMIT CASE WHEN b.alone THEN 1 ELSE $5 END
) AS p
ORDER BY b.due_time, b.person, p.sequence, p.position
"""
_UNPARK = """
DELETE FROM parked_deliveries AS p USING unnest($3::bigint[], $4::integer[]) AS k (sequence, position)
WHERE p.destination_id = $1 AND p.partition = $2 AND p.sequence = k.sequence AND p.position = k.position
RETURNING p.sequence, p.position, p.person
"""
_GET_ON = """
UPDATE barriers SET due_time = $4, attempts = 0, counted_attempts = 0, first_attempt_time = NULL, response_status = NULL,
    response_failure = NULL, alone = alone AND NOT person = ANY($5::bytea[])
WHERE destination_id = $1 AND partition = $2 AND person = ANY($3::bytea[])
"""
_FALL = """
DELETE FROM barriers AS b WHERE destination_id = $1 AND partition = $2 AND person = ANY($3::bytea[]) AND NOT EXISTS (
    SELECT FROM parked_deliveries WHERE destination_id = $1 AND partition = $2 AND person = b.person)
"""


class PostgresDeliveries:
    """``DeliveryStore`` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self, destination_id: int, partition: int) -> Standing:
        """See ``DeliveryStore``."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            row = await connection.fetchrow(_STANDING, destination_id, partition)
            if row is None:
                await connection.execute(_BEGIN, destination_id, partition)
                return Standing(Progress(), frozenset())
        return Standing(Progress(row["sequence"], row["source_sequence"]), frozenset(row["barred"]))

    async def settle(self, destination_id: int, partition: int, before: Progress, after: Progress, settlement: Settlement) -> bool:
        """See ``DeliveryStore``."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            where = (destination_id, partition)
            positions = (before.sequence, before.source_sequence, after.sequence, after.source_sequence, settlement.first_sequence)
            if await connection.execute(_ADVANCE, *where, *positions) != "UPDATE 1":
                return False
            if settlement.parked:
                await connection.execute(_PARK, *where, *_parked(settlement.parked))
                await connection.execute(_BAR_NEW, *where, *_barriers(settlement.barriers))
            await _store_ends(connection, where, settlement)
            await _count(connection, where, _counted(settlement))
        return True

    async def due(self, destination_id: int, partitions: Sequence[int], now: datetime) -> Sequence[int]:
        """See ``DeliveryStore``."""
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_DUE, destination_id, list(partitions), now)
        return [row["partition"] for row in rows]

    async def queues(self, destination_id: int, partition: int, now: datetime, *, people: int, events: int) -> Sequence[Queue]:
        """See ``DeliveryStore``."""
        async with self._database.transaction() as transaction:
            rows = await raw(transaction).fetch(_QUEUES, destination_id, partition, now, people, events)
        return [_queue(person, list(group)) for person, group in groupby(rows, lambda row: bytes(row["person"]))]

    async def settle_parked(
        self, destination_id: int, partition: int, now: datetime, settlement: Settlement, freed: Sequence[bytes]
    ) -> None:
        """See ``DeliveryStore``."""
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            where = (destination_id, partition)
            await connection.execute(_LOCK, *where)
            keys = [delivery.key for delivery in _ended(settlement)]
            rows = await connection.fetch(_UNPARK, *where, [key[0] for key in keys], [key[1] for key in keys])
            removed = {(row["sequence"], row["position"]) for row in rows}
            people = list({bytes(row["person"]) for row in rows})
            await connection.execute(_GET_ON, *where, people, now, list(freed))
            if settlement.barriers:
                await connection.execute(_BAR_AGAIN, *where, *_barriers(settlement.barriers))
            people += [barrier.person for barrier in settlement.barriers]
            await connection.execute(_FALL, *where, people)
            mine = _only(settlement, removed)
            await _store_ends(connection, where, mine)
            await _count(connection, where, _counted(mine))


def _ended(settlement: Settlement) -> Iterable[Delivery]:
    yield from settlement.delivered
    yield from (delivery for delivery, _ in settlement.filtered)
    yield from (withheld.delivery for withheld in settlement.withheld)
    yield from settlement.suppressed
    yield from (refusal.delivery for refusal in settlement.dead)


def _only(settlement: Settlement, keys: set[Key]) -> Settlement:
    """What a settlement says of the deliveries with these keys."""
    return Settlement(
        delivered=[delivery for delivery in settlement.delivered if delivery.key in keys],
        filtered=[(delivery, reason) for delivery, reason in settlement.filtered if delivery.key in keys],
        withheld=[withheld for withheld in settlement.withheld if withheld.delivery.key in keys],
        suppressed=[delivery for delivery in settlement.suppressed if delivery.key in keys],
        dead=[refusal for refusal in settlement.dead if refusal.delivery.key in keys],
    )


def _counted(settlement: Settlement) -> Counts:
    counts: Counts = defaultdict(int)
    counts[outcome_pb2.OUTCOME_DELIVERED, ""] += len(settlement.delivered)
    for reason, events in settlement.filtered_by_reason().items():
        counts[outcome_pb2.OUTCOME_FILTERED, reason] += events
    counts[outcome_pb2.OUTCOME_FILTERED, CONSENT_DENIED] += len(settlement.withheld)
    counts[outcome_pb2.OUTCOME_SUPPRESSED, SUPPRESSED] += len(settlement.suppressed)
    for refusal in settlement.dead:
        counts[outcome_pb2.OUTCOME_DEAD_LETTERED, refusal.reason] += 1
    return {key: events for key, events in counts.items() if events}


async def _count(connection: Connection, where: tuple[int, int], counts: Counts) -> None:
    if counts:
        outcomes, reasons = [key[0] for key in counts], [key[1] for key in counts]
        await connection.execute(_COUNT, *where, outcomes, reasons, list(counts.values()))


async def _store_ends(connection: Connection, where: tuple[int, int], settlement: Settlement) -> None:
    if dead := settlement.dead:
        await connection.execute(
            _BURY,
            *where,
            *_keys([refusal.delivery for refusal in dead]),
            [str(uuid7()) for _ in dead],
            [refusal.delivery.event.message_id for refusal in dead],
            [refusal.delivery.event.SerializeToString() for refusal in dead],
            [refusal.reason for refusal in dead],
            [refusal.answer.status for refusal in dead],
            # Postgres stores no NUL in text.
            [refusal.answer.body.replace("\0", "") for refusal in dead],
            [refusal.request for refusal in dead],
            [refusal.attempts for refusal in dead],
            [refusal.first_attempt for refusal in dead],
        )
    withheld = [(CONSENT_DENIED, each) for each in settlement.withheld]
    withheld += [(SUPPRESSED, Withheld(delivery, ())) for delivery in settlement.suppressed]
    if withheld:
        await connection.execute(
            _WITHHOLD,
            *where,
            *_keys([entry.delivery for _, entry in withheld]),
            [entry.delivery.event.message_id for _, entry in withheld],
            [reason for reason, _ in withheld],
            ["\x1f".join(entry.purposes) for _, entry in withheld],
            [" ".join(entry.decision_ids) for _, entry in withheld],
        )


def _keys(deliveries: Sequence[Delivery]) -> tuple[list[int], list[int]]:
    return [delivery.key[0] for delivery in deliveries], [delivery.key[1] for delivery in deliveries]


def _parked(deliveries: Sequence[Delivery]) -> tuple[list[Any], ...]:
    return (
        *_keys(deliveries),
        [delivery.person for delivery in deliveries],
        [delivery.event.message_id for delivery in deliveries],
        [delivery.event.SerializeToString() for delivery in deliveries],
    )


def _barriers(barriers: Sequence[Barrier]) -> tuple[list[Any], ...]:
    tried = [barrier.trials for barrier in barriers]
    return (
        [barrier.person for barrier in barriers],
        [trials.due for trials in tried],
        [barrier.alone for barrier in barriers],
        [trials.attempts for trials in tried],
        [trials.counted_attempts for trials in tried],
        [trials.first_attempt for trials in tried],
        [trials.answer.status if trials.answer else None for trials in tried],
        [trials.answer.failure if trials.answer else None for trials in tried],
    )


def _queue(person: bytes, rows: Sequence[asyncpg.Record]) -> Queue:
    head = rows[0]
    status = head["response_status"]
    trials = Trials(
        due=head["due_time"],
        attempts=head["attempts"],
        counted_attempts=head["counted_attempts"],
        first_attempt=head["first_attempt_time"],
        answer=None if status is None else Answer(status, failure=head["response_failure"]),
    )
    barrier = Barrier(person, trials, head["alone"])
    return Queue(barrier, [Delivery(Event.FromString(row["event"]), person, (row["sequence"], row["position"])) for row in rows])
