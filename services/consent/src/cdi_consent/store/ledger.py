"""The ledger with its chain, and the decisions in force.

Deadlock-free: every writing transaction first takes the advisory locks of its subjects' stripes in rising order and waits for
nothing else that another one may hold. The stripes are few, so that a large batch does not fill the server's lock table.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

import asyncpg
import msgspec
import xxhash
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_consent.convert import announcement
from cdi_consent.domain.chain import SALT_BYTES, Line, Link, linked
from cdi_consent.domain.decisions import UNDECIDED, Decided, Decision, Source, Standing, Subject, in_force
from cdi_consent.ports import Chain, Position
from cdi_consent.store.instants import moment
from cdi_consent.store.lines import CHAINS, KEEP_SIGNALS, LINE, PUT_HEADS, RECORD, hexed, line_of, written
from cdi_consent.store.verification import chains
from cdi_kernel import envelope, topology
from cdi_kernel.clock import MAX_INSTANT_US, instant_of
from cdi_runtime.store import Database, OutboxMessage, enqueue, raw

MAX_ANNOUNCED: Final = 500
"""Decisions in one message on CONSENT: below 512 KiB unless ids and proofs are unusually long, below 8 MiB always."""

SIGNALS_LOCK: Final = 0x0CD1_0011
"""Held by who keeps a signal, shared, and by who removes signals that nobody needs any more: between looking for one and adding the line
that needs it, it must not go. Taken behind the stripes of the subjects."""

_STRIPES: Final = 256
_SUBJECT_LOCKS: Final = 0x0CD1_0010
_DECIDED: Final = msgspec.json.Decoder(list[dict[str, Standing]])
_NEWEST: Final[Position] = (MAX_INSTANT_US, "ffffffff-ffff-ffff-ffff-ffffffffffff")

# Many values travel as one JSON text per column: the driver would take half a microsecond for each element of an array. The answer is one
# row per workspace and type: a row costs the driver more than two elements of arrays. OFFSET 0 keeps the planner from reading the whole
# table for a hash join: the index is searched for the sorted ids, whatever the statistics say.
STANDINGS: Final = """
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
        AND l.purpose = k.purpose AND l.decision_id <> ALL($5::uuid[]) AND l.source <> 4
        AND NOT EXISTS (
            SELECT 1 FROM ledger AS s
            WHERE s.workspace_id = l.workspace_id AND s.subject_type = l.subject_type AND s.subject_id = l.subject_id
                AND s.source = 4 AND s.proof = l.decision_id::text
        )
    ORDER BY l.decide_time DESC, l.granted, l.decision_id DESC LIMIT 1
) AS l
"""

_PUT_IN_FORCE: Final = """
INSERT INTO current_decisions (workspace_id, subject_type, subject_id, standings)
SELECT workspace_id, subject_type, subject_id, standings::json
FROM ROWS FROM (
    json_array_elements_text($1), json_array_elements_text($2), json_array_elements_text($3), json_array_elements_text($4)
) AS k (workspace_id, subject_type, subject_id, standings)
ON CONFLICT (workspace_id, subject_type, subject_id) DO UPDATE SET standings = excluded.standings
"""

_PAGE: Final = f"""
{LINE} WHERE l.workspace_id = $1 AND l.subject_type = $2 AND l.subject_id = $3 AND (l.decide_time, l.decision_id) < ($4, $5)
ORDER BY l.decide_time DESC, l.decision_id DESC LIMIT $6
"""

_INHERITED: Final = f"{LINE} WHERE l.source = 3 AND l.workspace_id = $1 AND l.proof = ANY($2) ORDER BY l.decide_time, l.decision_id"

_BY_ID: Final = f"{LINE} WHERE l.workspace_id = $1 AND l.decision_id = ANY($2::uuid[]) ORDER BY l.decide_time, l.decision_id"


async def lock_subjects(driver: asyncpg.Connection[asyncpg.Record], subjects: Collection[Subject]) -> None:
    """Nobody else writes about these subjects until the end of the transaction."""
    stripes = sorted({xxhash.xxh3_64_intdigest("\x1f".join(subject).encode()) % _STRIPES for subject in subjects})
    await driver.execute("SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::integer[]) AS stripe", _SUBJECT_LOCKS, stripes)


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
        async with self._database.transaction() as connection:
            await lock_subjects(raw(connection), subjects)
            ledger = ConnectionLedger(connection)
            yield ledger
        if ledger.announced:
            self._recorded()

    async def page(self, subject: Subject, before: Position | None, limit: int) -> list[Line]:
        decide_us, decision_id = before or _NEWEST
        async with self._database.session() as connection:
            return list(map(line_of, await raw(connection).fetch(_PAGE, *subject, moment(decide_us), decision_id, limit)))

    async def lines(self, workspace_id: str, decision_ids: Collection[str]) -> list[Line]:
        async with self._database.session() as connection:
            return list(map(line_of, await raw(connection).fetch(_BY_ID, workspace_id, list(decision_ids))))

    async def inherited(self, workspace_id: str, roots: Collection[str]) -> list[Line]:
        async with self._database.session() as connection:
            return list(map(line_of, await raw(connection).fetch(_INHERITED, workspace_id, list(roots))))

    def verification(self, workspace_id: str, subject: Subject | None) -> AsyncIterator[Chain]:
        return chains(self._database, workspace_id, subject)


class ConnectionLedger:
    """The ledger through one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._driver = raw(connection)
        self.announced = False
        self._asked: Collection[Subject] = ()
        self._found: dict[Subject, Decided] = {}

    async def standings(self, subjects: Collection[Subject]) -> dict[Subject, Decided]:
        found: dict[Subject, Decided] = {}
        for row in await self._driver.fetch(STANDINGS, *keys_of(subjects)):
            found |= standings_of(row)
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

    async def record(
        self,
        decisions: Sequence[Decision],
        confirmations: Mapping[tuple[Subject, str], Standing] = {},
        restored: Mapping[tuple[Subject, str], Standing | None] = {},
    ) -> None:
        lines = await self._add({decision.decision_id: decision for decision in decisions})
        new = [line.decision for line in lines]
        if new or confirmations:
            split = [(decision.subject, decision.purpose) for decision in new if decision.source is Source.SPLIT]
            await self._put_in_force(new, confirmations, {key: restored[key] for key in split})
        await enqueue(self._connection, list(_announcements(lines)))
        self.announced = bool(new)

    async def _add(self, by_id: Mapping[str, Decision]) -> list[Line]:
        """Those decisions that were not in the ledger yet, now behind the last line of their subjects."""
        if not by_id:
            return []
        subjects = zip(*{decision.subject for decision in by_id.values()}, strict=True)
        row = await self._driver.fetchrow(CHAINS, *map(_json, (list(by_id), *subjects)))
        assert row is not None, "the statement gives one row"
        known = set(msgspec.json.decode(row[0]))
        heads = {
            (workspace_id, subject_type, subject_id): Link(position, bytes.fromhex(previous), bytes.fromhex(digest))
            for workspace_id, subject_type, subject_id, position, previous, digest in msgspec.json.decode(row[1])
        }
        new = [decision for decision in by_id.values() if decision.decision_id not in known]
        lines = linked(new, heads, lambda: os.urandom(SALT_BYTES))
        if lines:
            await self._write(lines)
        return lines

    async def _write(self, lines: Sequence[Line]) -> None:
        signals = {hashlib.sha256(line.decision.signal).digest(): line.decision.signal for line in lines if line.decision.signal}
        if signals:
            await self._driver.execute("SELECT pg_advisory_xact_lock_shared($1)", SIGNALS_LOCK)
            await self._driver.execute(KEEP_SIGNALS, list(signals), list(signals.values()))
        rows = [(*written(line.decision), *hexed(line.link), *map(bytes.hex, line.seal)) for line in lines]
        await self._driver.execute(RECORD, *map(_json, zip(*rows, strict=True)))
        heads = {line.decision.subject: line.link for line in lines}
        columns = zip(*[(*subject, *hexed(link)) for subject, link in heads.items()], strict=True)
        await self._driver.execute(PUT_HEADS, *map(_json, columns))

    async def _put_in_force(
        self,
        new: Sequence[Decision],
        confirmations: Mapping[tuple[Subject, str], Standing],
        restored: Mapping[tuple[Subject, str], Standing | None],
    ) -> None:
        touched = {decision.subject for decision in new} | {subject for subject, _ in confirmations}
        # Nobody else writes about them before the commit: what was read under their locks still holds.
        before = self._found if touched.issubset(self._asked) else await self.standings(touched)
        after = in_force(before, new, confirmations, restored)
        changed = [subject for subject in sorted(after) if after[subject] != before.get(subject, UNDECIDED)]
        if changed:
            columns = (*zip(*changed, strict=True), [after[subject] for subject in changed])
            await self._driver.execute(_PUT_IN_FORCE, *map(_json, columns))


def keys_of(subjects: Iterable[Subject]) -> Sequence[Sequence[object]]:
    """What ``STANDINGS`` takes. Nothing is in force in a workspace whose name Postgres cannot hold."""
    groups: dict[tuple[str, str], list[str]] = {}
    for workspace_id, subject_type, subject_id in subjects:
        groups.setdefault((workspace_id, subject_type), []).append(subject_id)
    return _columns([(*group, _json(ids)) for group, ids in groups.items() if "\0" not in group[0]], 3)


def standings_of(row: asyncpg.Record) -> dict[Subject, Decided]:
    """A row of ``STANDINGS``."""
    workspace_id, subject_type, ids, standings = row
    decided = _DECIDED.decode(f"[{','.join(standings)}]")
    return {(workspace_id, subject_type, subject_id): own for subject_id, own in zip(ids, decided, strict=True)}


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[Sequence[object]]:
    """Rows as the arrays that ``unnest`` takes, one per column."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _json(column: Sequence[object]) -> str:
    """Values as a JSON text that ``json_array_elements_text`` takes; of values that are objects it gives the texts."""
    return msgspec.json.encode(column).decode()


def _announcements(lines: Sequence[Line]) -> Iterator[OutboxMessage]:
    """The messages on CONSENT: each of one workspace, in the order of recording."""
    ordered = sorted(lines, key=lambda line: line.decision.subject[0])
    for workspace_id, group in groupby(ordered, key=lambda line: line.decision.subject[0]):
        own = list(group)
        for start in range(0, len(own), MAX_ANNOUNCED):
            message = announcement(own[start : start + MAX_ANNOUNCED])
            headers = {envelope.SCHEMA: message.DESCRIPTOR.full_name}
            yield OutboxMessage(topology.consent(workspace_id), message.SerializeToString(), headers)
