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
import msgspec
import xxhash
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_consent.convert import announcement
from cdi_consent.domain.decisions import UNDECIDED, Decided, Decision, Standing, Subject, in_force
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
_DECIDED: Final = msgspec.json.Decoder(list[dict[str, Standing]])
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEWEST: Final[Position] = (MAX_INSTANT_US, "ffffffff-ffff-ffff-ffff-ffffffffffff")

# Many values travel as one JSON text per column: the driver would take half a microsecond for each element of an array. The answer is one
# row per workspace and type: a row costs the driver more than two elements of arrays. OFFSET 0 keeps the planner from reading the whole
# table for a hash join: the index is searched for the sorted ids, whatever the statistics say.
_STANDINGS: Final = """
SELECT g.workspace_id, g.subject_type, array_agg(c.subject_id), array_agg(c.standings)
FROM unnest($1::text[], $2::text[], $3::text[]) AS g (workspace_id, subject_type, ids)
CROSS JOIN LATERAL (
    SELECT subject_id, standings::text AS standings FROM current_decisions AS c
    WHERE c.workspace_id = g.workspace_id AND c.subject_type = g.subject_type
        AND c.subject_id = ANY (ARRAY(SELECT json_array_elements_text(g.ids::json))) OFFSET 0
) AS c
GROUP BY g.workspace_id, g.subject_type
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
WITH added AS (
    INSERT INTO ledger
        (decision_id, workspace_id, subject_type, subject_id, purpose, granted, decide_time, record_time, proof)
    SELECT decision_id::uuid, workspace_id, subject_type, subject_id, purpose, granted::boolean,
        to_timestamp(decide_us::bigint / 1000000) + decide_us::bigint % 1000000 * interval '1 microsecond',
        to_timestamp(record_us::bigint / 1000000) + record_us::bigint % 1000000 * interval '1 microsecond',
        proof
    FROM ROWS FROM (
        json_array_elements_text($1), json_array_elements_text($2), json_array_elements_text($3),
        json_array_elements_text($4), json_array_elements_text($5), json_array_elements_text($6),
        json_array_elements_text($7), json_array_elements_text($8), json_array_elements_text($9)
    ) AS k (decision_id, workspace_id, subject_type, subject_id, purpose, granted, decide_us, record_us, proof)
    ON CONFLICT (decision_id) DO NOTHING
    RETURNING decision_id
)
SELECT coalesce(json_agg(decision_id), '[]')::text FROM added
"""

_PUT_IN_FORCE: Final = """
INSERT INTO current_decisions (workspace_id, subject_type, subject_id, standings)
SELECT workspace_id, subject_type, subject_id, standings::json
FROM ROWS FROM (
    json_array_elements_text($1), json_array_elements_text($2), json_array_elements_text($3), json_array_elements_text($4)
) AS k (workspace_id, subject_type, subject_id, standings)
ON CONFLICT (workspace_id, subject_type, subject_id) DO UPDATE SET standings = excluded.standings
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
        self._asked: Collection[Subject] = ()
        self._found: dict[Subject, Decided] = {}

    async def standings(self, subjects: Collection[Subject]) -> dict[Subject, Decided]:
        groups: dict[tuple[str, str], list[str]] = {}
        for workspace_id, subject_type, subject_id in subjects:
            groups.setdefault((workspace_id, subject_type), []).append(subject_id)
        keys = [(*group, _json(ids)) for group, ids in groups.items()]
        rows = await self._driver.fetch(_STANDINGS, *_columns(keys, 3))
        found: dict[Subject, Decided] = {
            (workspace_id, subject_type, subject_id): decided
            for workspace_id, subject_type, ids, standings in rows
            for subject_id, decided in zip(ids, _DECIDED.decode(f"[{','.join(standings)}]"), strict=True)
        }
        self._asked, self._found = subjects, found
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
        by_id = {decision.decision_id: decision for decision in decisions}
        new = await self._add(by_id)
        if new or confirmations:
            await self._put_in_force(new, confirmations)
        await enqueue(self._connection, list(_announcements(new)))
        self.announced = bool(new)

    async def _add(self, by_id: Mapping[str, Decision]) -> list[Decision]:
        """Those decisions that were not in the ledger yet."""
        if not by_id:
            return []
        # The statement takes the columns in the order of ``Decision``'s fields.
        ids, subjects, *others = zip(*by_id.values(), strict=True)
        added = await self._driver.fetchval(_RECORD, *map(_json, (ids, *zip(*subjects, strict=True), *others)))
        are_added = set(msgspec.json.decode(added))
        return [decision for decision in by_id.values() if decision.decision_id in are_added]

    async def _put_in_force(self, new: Sequence[Decision], confirmations: Mapping[tuple[Subject, str], Standing]) -> None:
        touched = {decision.subject for decision in new} | {subject for subject, _ in confirmations}
        # Nobody else writes about them before the commit: what was read under their locks still holds.
        before = self._found if touched.issubset(self._asked) else await self.standings(touched)
        after = in_force(before, new, confirmations)
        changed = [subject for subject in sorted(after) if after[subject] != before.get(subject, UNDECIDED)]
        if changed:
            columns = (*zip(*changed, strict=True), [after[subject] for subject in changed])
            await self._driver.execute(_PUT_IN_FORCE, *map(_json, columns))


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


def _json(column: Sequence[object]) -> str:
    """Values as a JSON text that ``json_array_elements_text`` takes; of values that are objects it gives the texts."""
    return msgspec.json.encode(column).decode()


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
