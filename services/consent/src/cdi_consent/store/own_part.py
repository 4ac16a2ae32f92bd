"""Consent's own part of privacy requests: the person goes out of the ledger, what is in force goes altogether, or both are handed over.

A line keeps what was decided, when, how, and its place in the chain. Its subject id becomes "erased:", the keyed digest of the id and a
number of its own, because the same id may come again and be erased again; its signal's SHA-256 becomes a keyed digest; proof and salt go
(``domain/chain.py``). The triggers of the ledger allow exactly this change, and that a signal goes which no line needs any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from google.protobuf.json_format import MessageToDict

from cdi_consent.convert import decision_message
from cdi_consent.domain.chain import ERASED, Line
from cdi_consent.domain.decisions import SUBJECT_TYPES, Subject
from cdi_consent.domain.privacy import CONSENT, Report, Status, Verb
from cdi_consent.domain.privacy_request import Request
from cdi_consent.domain.tombstones import Digester
from cdi_consent.store.holdings import add_holding, put_holdings
from cdi_consent.store.ledger import SIGNALS_LOCK, lock_subjects
from cdi_consent.store.lines import LINE, line_of
from cdi_consent.store.reports import record
from cdi_consent.store.requests import REQUEST, Driver, request_of
from cdi_kernel.ids import uuid7
from cdi_runtime.store import Database, raw

ROWS_PER_PIECE: Final = 500

_OWN: Final = f"""
{REQUEST} WHERE due_time IS NOT NULL AND request_id IN (SELECT request_id FROM privacy_parts WHERE service = $1 AND reported < needed)
LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_KEYS: Final = "unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (workspace_id, subject_type, subject_id, position)"
_SIGNALS: Final = f"""
SELECT DISTINCT l.workspace_id, l.signal_digest FROM {_KEYS} JOIN ledger AS l USING (workspace_id, subject_type, subject_id)
WHERE l.signal_digest IS NOT NULL
"""
_ERASE: Final = """
WITH erased AS (
    UPDATE ledger AS l SET subject_id = k.alias, proof = '', salt = NULL,
        signal_digest = (
            SELECT keyed FROM unnest($5::text[], $6::bytea[], $7::bytea[]) AS s (workspace_id, digest, keyed)
            WHERE s.workspace_id = l.workspace_id AND s.digest = l.signal_digest
        )
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
        AS k (workspace_id, subject_type, subject_id, alias, position)
    WHERE l.workspace_id = k.workspace_id AND l.subject_type = k.subject_type AND l.subject_id = k.subject_id
    RETURNING k.position
)
SELECT position, count(*) FROM erased GROUP BY position
"""
_RENAME_HEADS: Final = """
UPDATE chain_heads AS h SET subject_id = k.alias
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (workspace_id, subject_type, subject_id, alias)
WHERE h.workspace_id = k.workspace_id AND h.subject_type = k.subject_type AND h.subject_id = k.subject_id
"""
_FORGET: Final = f"""
DELETE FROM current_decisions AS c USING {_KEYS}
WHERE c.workspace_id = k.workspace_id AND c.subject_type = k.subject_type AND c.subject_id = k.subject_id RETURNING k.position
"""
_FREE_SIGNALS: Final = """
DELETE FROM signals AS s WHERE s.digest = ANY($1::bytea[]) AND NOT EXISTS (SELECT 1 FROM ledger AS l WHERE l.signal_digest = s.digest)
"""
_LINES: Final = f"""
{LINE} JOIN {_KEYS} ON l.workspace_id = k.workspace_id AND l.subject_type = k.subject_type AND l.subject_id = k.subject_id
"""
_STANDINGS: Final = f"""
SELECT c.subject_type, c.subject_id, c.standings::text FROM {_KEYS}
JOIN current_decisions AS c USING (workspace_id, subject_type, subject_id)
"""


@dataclass(frozen=True, slots=True)
class PostgresOwnPart:
    """See ``OwnStore``.

    Attributes:
        database: the pool.
        digest: makes digests of ids.
    """

    database: Database
    digest: Digester

    async def work(self, now_us: int, limit: int) -> int:
        """Does consent's part of at most so many requests and reports it, in one transaction; of how many."""
        async with self.database.transaction() as connection:
            driver = raw(connection)
            requests = [request_of(row) for row in await driver.fetch(_OWN, CONSENT, limit)]
            if not requests:
                return 0
            reports = [(request.request_id, one) for request, one in await self._erase(driver, _erasing(requests), now_us)]
            for request in requests:
                if request.verb is Verb.ACCESS:
                    reports += [(request.request_id, one) for one in await _hand_over(driver, request, now_us)]
                elif request.verb.suppresses is not None:
                    # Those of the first look; later ones find the same.
                    count = len(request.ids) if request.looks_left == request.verb.looks - 1 else 0
                    reports.append((request.request_id, _report(request, "tombstones", count, now_us)))
            await record(driver, [(request.request_id, CONSENT, request.attempt) for request in requests], reports, now_us)
        return len(requests)

    async def _erase(self, driver: Driver, requests: Sequence[Request], now_us: int) -> list[tuple[Request, Report]]:
        # A subject of two requests is counted for the first.
        owners = {subject: request for request in reversed(requests) for subject in _own_subjects(request)}
        lines: Counter[str] = Counter()
        standings: Counter[str] = Counter()
        if owners:
            subjects = list(owners)
            await lock_subjects(driver, subjects)
            keys = tuple(zip(*subjects, strict=True))
            signals = [tuple(row) for row in await driver.fetch(_SIGNALS, *keys)]
            aliases = [f"{ERASED}{self.digest(subject).hex()}:{uuid7().hex}" for subject in subjects]
            keyed = [self.digest.of_signal(*signal) for signal in signals]
            columns = [signal[0] for signal in signals], [signal[1] for signal in signals], keyed
            for position, count in await driver.fetch(_ERASE, *keys, aliases, *columns):
                lines[owners[subjects[position - 1]].request_id] += count
            await driver.execute(_RENAME_HEADS, *keys, aliases)
            for row in await driver.fetch(_FORGET, *keys):
                standings[owners[subjects[row[0] - 1]].request_id] += 1
            if signals:
                await driver.execute("SELECT pg_advisory_xact_lock($1)", SIGNALS_LOCK)
                await driver.execute(_FREE_SIGNALS, columns[1])
        return [
            (request, _report(request, store, counts[request.request_id], now_us))
            for request in requests
            for store, counts in (("ledger", lines), ("current_decisions", standings))
        ]


async def _hand_over(driver: Driver, request: Request, now_us: int) -> list[Report]:
    """Writes what consent holds about a person as holdings."""
    keys = tuple(zip(*_own_subjects(request), strict=True)) or ((), (), ())
    decisions = [_decision_row(line_of(row)) for row in await driver.fetch(_LINES, *keys)]
    standings = [
        orjson.dumps({"subject_type": kind, "subject_id": value, "standings": orjson.loads(text)})
        for kind, value, text in await driver.fetch(_STANDINGS, *keys)
    ]
    holdings_id, part = str(uuid7()), 0
    for holding, rows in (("decisions", decisions), ("current_decisions", standings)):
        for start in range(0, len(rows), ROWS_PER_PIECE):
            await add_holding(driver, holdings_id, part, request.request_id, CONSENT, holding, rows[start : start + ROWS_PER_PIECE])
            part += 1
    await put_holdings(driver, holdings_id, request.request_id, CONSENT)
    return [_report(request, "ledger", len(decisions), now_us), _report(request, "current_decisions", len(standings), now_us)]


def _decision_row(line: Line) -> bytes:
    row = MessageToDict(decision_message(line), preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    row["signal"] = line.decision.signal.decode(errors="replace")
    return orjson.dumps({name: value for name, value in row.items() if name not in ("salt", "commitment")})


def _erasing(requests: Sequence[Request]) -> list[Request]:
    return [request for request in requests if request.verb.erases]


def _own_subjects(request: Request) -> list[Subject]:
    """The ids of whom consent may know something."""
    return [subject for subject in dict.fromkeys((*request.subjects, *request.people)) if subject[1] in SUBJECT_TYPES]


def _report(request: Request, store: str, count: int, now_us: int) -> Report:
    return Report(CONSENT, store, request.attempt, Status.FINISHED, count, "", now_us)
