"""Postgres: purposes with versions, the ledger, the decisions in force.

Deadlock-free: every writing transaction first takes the advisory locks of its subjects' stripes in rising order and waits for
nothing else that another one may hold. The stripes are few, so that a large batch does not fill the server's lock table.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import asyncpg
import xxhash
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_consent.convert import announcement
from cdi_consent.domain.decisions import Decision, Standing, Subject
from cdi_consent.domain.purposes import Purpose
from cdi_consent.ports import Position
from cdi_kernel import envelope, topology
from cdi_kernel.clock import MAX_INSTANT_US, instant_of
from cdi_runtime.store import Database, OutboxMessage, enqueue, raw

MAX_ANNOUNCED: Final = 500
"""Decisions in one message on CONSENT: below 512 KiB unless ids and proofs are unusually long, below 8 MiB always."""

_STRIPES: Final = 256
_SUBJECT_LOCKS: Final = 0x0CD1_0010
_PURPOSE_LOCK: Final = 0x0CD1_0011
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEWEST: Final[Position] = (MAX_INSTANT_US, "ffffffff-ffff-ffff-ffff-ffffffffffff")

# OFFSET 0 keeps the planner from joining by hash over the whole table: one index descent per subject, whatever the statistics say.
_STANDINGS: Final = """
SELECT k.position, c.purpose, c.granted, c.decide_us, c.decision_id, c.proof
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (workspace_id, subject_type, subject_id, position)
CROSS JOIN LATERAL (
    SELECT purpose, granted, decide_us, decision_id::text AS decision_id, proof FROM current_decisions AS c
    WHERE c.workspace_id = k.workspace_id AND c.subject_type = k.subject_type AND c.subject_id = k.subject_id OFFSET 0
) AS c
"""

_STANDINGS_WITHOUT: Final = """
SELECT k.position, l.granted, l.decide_time, l.decision_id, l.proof
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS k (workspace_id, subject_type, subject_id, purpose, position)
CROSS JOIN LATERAL (
    SELECT granted, decide_time, decision_id::text AS decision_id, proof FROM ledger AS l
    WHERE l.workspace_id = k.workspace_id AND l.subject_type = k.subject_type AND l.subject_id = k.subject_id
        AND l.purpose = k.purpose AND l.decision_id <> ALL($5::uuid[])
    ORDER BY l.decide_time DESC, l.granted, l.decision_id DESC LIMIT 1
) AS l
"""

_RECORD: Final = """
INSERT INTO ledger
    (decision_id, workspace_id, subject_type, subject_id, purpose, granted, decide_time, record_time, proof)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[], $8::timestamptz[], $9::text[]
)
ON CONFLICT (decision_id) DO NOTHING
RETURNING decision_id::text AS decision_id
"""

_PUT_IN_FORCE: Final = """
INSERT INTO current_decisions AS c (workspace_id, subject_type, subject_id, purpose, granted, decide_us, decision_id, proof)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::bigint[], $7::uuid[], $8::text[])
ON CONFLICT (workspace_id, subject_type, subject_id, purpose) DO UPDATE
SET granted = excluded.granted, decide_us = excluded.decide_us, decision_id = excluded.decision_id, proof = excluded.proof
WHERE (excluded.decide_us, NOT excluded.granted, excluded.decision_id) > (c.decide_us, NOT c.granted, c.decision_id)
"""

_CONFIRM: Final = """
UPDATE current_decisions AS c SET decide_us = k.decide_us
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[])
    AS k (workspace_id, subject_type, subject_id, purpose, decision_id, decide_us)
WHERE c.workspace_id = k.workspace_id AND c.subject_type = k.subject_type AND c.subject_id = k.subject_id
    AND c.purpose = k.purpose AND c.decision_id = k.decision_id AND c.decide_us < k.decide_us
"""

_PAGE: Final = """
SELECT decision_id::text AS decision_id, purpose, granted, decide_time, record_time, proof FROM ledger
WHERE workspace_id = $1 AND subject_type = $2 AND subject_id = $3 AND (decide_time, decision_id) < ($4, $5)
ORDER BY decide_time DESC, decision_id DESC LIMIT $6
"""

_PURPOSES: Final = """
SELECT DISTINCT ON (workspace_id, name)
    workspace_id, name, version, description, categories, allowed_by_default, required_for_linking
FROM purposes {where} ORDER BY workspace_id, name, version DESC
"""


class LedgerStore:
    """The ledger and what is in force. ``recorded`` is called after a commit that left something in the outbox."""

    def __init__(self, database: Database, recorded: Callable[[], None]) -> None:
        self._database = database
        self._recorded = recorded

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[ConnectionLedger]:
        async with self._database.session() as connection:
            yield ConnectionLedger(connection)

    @contextlib.asynccontextmanager
    async def writing(self, subjects: Collection[Subject]) -> AsyncIterator[ConnectionLedger]:
        stripes = sorted({xxhash.xxh3_64_intdigest("\x1f".join(subject).encode()) % _STRIPES for subject in subjects})
        async with self._database.transaction() as connection:
            await raw(connection).execute(
                "SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::integer[]) AS stripe", _SUBJECT_LOCKS, stripes
            )
            ledger = ConnectionLedger(connection)
            yield ledger
        if ledger.announced:
            self._recorded()

    async def page(self, subject: Subject, before: Position | None, limit: int) -> list[Decision]:
        decide_us, decision_id = before or _NEWEST
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(_PAGE, *subject, _datetime(decide_us), decision_id, limit)
        return [
            Decision(
                row["decision_id"],
                subject,
                row["purpose"],
                row["granted"],
                instant_of(row["decide_time"]),
                instant_of(row["record_time"]),
                row["proof"],
            )
            for row in rows
        ]


class ConnectionLedger:
    """The ledger through one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._driver = raw(connection)
        self.announced = False

    async def standings(self, subjects: Collection[Subject]) -> dict[Subject, dict[str, Standing]]:
        ordered = list(subjects)
        found: dict[Subject, dict[str, Standing]] = {}
        for position, purpose, *standing in await self._driver.fetch(_STANDINGS, *_columns(ordered, 3)):
            found.setdefault(ordered[position - 1], {})[purpose] = Standing(*standing)
        return found

    async def standings_without(self, ignored: Mapping[tuple[Subject, str], Sequence[str]]) -> dict[tuple[Subject, str], Standing]:
        ordered = list(ignored)
        keys = [(*subject, purpose) for subject, purpose in ordered]
        ids = [decision_id for own in ignored.values() for decision_id in own]
        rows = await self._driver.fetch(_STANDINGS_WITHOUT, *_columns(keys, 4), ids)
        return {
            ordered[position - 1]: Standing(granted, instant_of(decide_time), decision_id, proof)
            for position, granted, decide_time, decision_id, proof in rows
        }

    async def record(self, decisions: Sequence[Decision], confirmations: Mapping[tuple[Subject, str], Standing] = {}) -> None:
        # First what stands is brought up to date, so that a decision older than its confirmation does not take its place.
        confirmed = [(*subject, purpose, to.decision_id, to.decide_us) for (subject, purpose), to in confirmations.items()]
        if confirmed:
            await self._driver.execute(_CONFIRM, *_columns(confirmed, 6))
        by_id = {decision.decision_id: decision for decision in decisions}
        if not by_id:
            return
        rows = await self._driver.fetch(_RECORD, *_columns([_line(decision) for decision in by_id.values()], 9))
        new_ids = {row["decision_id"] for row in rows}
        new = [decision for decision in by_id.values() if decision.decision_id in new_ids]
        if new:
            await self._driver.execute(_PUT_IN_FORCE, *_columns(list(_latest(new, confirmations)), 8))
            await enqueue(self._connection, list(_announcements(new)))
            self.announced = True


class PostgresPurposes:
    """The purposes, a row per version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, purpose: Purpose) -> tuple[Purpose, bool]:
        async with self._database.transaction() as connection:
            driver = raw(connection)
            await driver.execute("SELECT pg_advisory_xact_lock($1, 0)", _PURPOSE_LOCK)
            where = "WHERE workspace_id = $1 AND name = $2"
            row = await driver.fetchrow(_PURPOSES.format(where=where), purpose.workspace_id, purpose.name)
            newest = None if row is None else _purpose(row)
            applied = dataclasses.replace(purpose, version=newest.version if newest else 0)
            if applied == newest:
                return applied, False
            applied = dataclasses.replace(purpose, version=applied.version + 1)
            await driver.execute(
                "INSERT INTO purposes"
                " (workspace_id, name, version, description, categories, allowed_by_default, required_for_linking)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                applied.workspace_id,
                applied.name,
                applied.version,
                applied.description,
                applied.categories,
                applied.allowed_by_default,
                applied.required_for_linking,
            )
        return applied, True

    async def newest(self) -> list[Purpose]:
        async with self._database.session() as connection:
            return [_purpose(row) for row in await raw(connection).fetch(_PURPOSES.format(where=""))]

    async def page(self, workspace_id: str, after_name: str, limit: int) -> list[Purpose]:
        statement = _PURPOSES.format(where="WHERE workspace_id = $1 AND name > $2") + " LIMIT $3"
        async with self._database.session() as connection:
            return [_purpose(row) for row in await raw(connection).fetch(statement, workspace_id, after_name, limit)]


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[Sequence[object]]:
    """Rows as the arrays that ``unnest`` takes, one per column."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _line(decision: Decision) -> tuple[object, ...]:
    return (
        decision.decision_id,
        *decision.subject,
        decision.purpose,
        decision.granted,
        _datetime(decision.decide_us),
        _datetime(decision.record_us),
        decision.proof,
    )


def _latest(decisions: Sequence[Decision], confirmations: Mapping[tuple[Subject, str], Standing]) -> Iterator[tuple[object, ...]]:
    """The row of ``current_decisions`` for each subject and purpose, from the decision that takes precedence."""
    by_key: dict[tuple[Subject, str], Standing] = {}
    for decision in decisions:
        key = decision.subject, decision.purpose
        confirmed = confirmations.get(key)
        standing = confirmed if confirmed is not None and confirmed.decision_id == decision.decision_id else decision.standing
        known = by_key.get(key)
        if known is None or known.precedence < standing.precedence:
            by_key[key] = standing
    for (subject, purpose), standing in sorted(by_key.items()):
        yield (*subject, purpose, *standing)


def _announcements(decisions: Sequence[Decision]) -> Iterator[OutboxMessage]:
    """The messages on CONSENT: each of one workspace, in the order of recording."""
    ordered = sorted(decisions, key=lambda decision: decision.subject[0])
    for workspace_id, group in groupby(ordered, key=lambda decision: decision.subject[0]):
        own = list(group)
        for start in range(0, len(own), MAX_ANNOUNCED):
            message = announcement(own[start : start + MAX_ANNOUNCED])
            headers = {envelope.SCHEMA: message.DESCRIPTOR.full_name}
            yield OutboxMessage(topology.consent(workspace_id), message.SerializeToString(), headers)


def _purpose(row: asyncpg.Record) -> Purpose:
    return Purpose(
        row["workspace_id"],
        row["name"],
        row["description"],
        tuple(row["categories"]),
        row["allowed_by_default"],
        row["required_for_linking"],
        row["version"],
    )


def _datetime(instant_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant_us)
