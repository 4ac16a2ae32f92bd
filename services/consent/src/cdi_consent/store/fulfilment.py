"""Privacy requests under way: orders, reports, the next move. What one call changes is one transaction, with its messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_consent.convert_privacy import order_message
from cdi_consent.domain.privacy import CONSENT, End, Part, Status, Tell, Verb, next_move, retell_after_us, told
from cdi_consent.domain.privacy_report import Ended, report_of, signed
from cdi_consent.domain.privacy_request import File, Request, Timing
from cdi_consent.domain.tombstones import Burial, Digester
from cdi_consent.ports import Reported
from cdi_consent.store.instants import moment
from cdi_consent.store.reports import take
from cdi_consent.store.requests import REQUEST, Driver, files_of, ids_text, keep_digests, request_of
from cdi_consent.store.tombstones import bury, newest_generation
from cdi_kernel import envelope, topology
from cdi_runtime.store import Database, OutboxMessage, enqueue, raw

_UNKNOWN: Final = f"{REQUEST} WHERE order_time IS NULL AND due_time <= $1 ORDER BY due_time, request_id LIMIT $2"
_DUE: Final = f"{REQUEST} WHERE order_time IS NOT NULL AND due_time <= $1 ORDER BY due_time LIMIT $2 FOR UPDATE SKIP LOCKED"
_POSTPONE: Final = (
    "UPDATE privacy_requests SET due_time = $2, lookups = lookups + 1 WHERE request_id = ANY($1::uuid[]) AND order_time IS NULL"
)
_FREE: Final = "SELECT request_id::text FROM privacy_requests WHERE request_id = ANY($1::uuid[]) AND order_time IS NULL FOR UPDATE"
_ORDER: Final = """
UPDATE privacy_requests AS r SET status = $5, people = k.people::json,
    profile_ids = ARRAY(SELECT json_array_elements_text(k.profile_ids::json)), order_time = $4, attempt = 1, due_time = $6
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS k (request_id, people, profile_ids) WHERE r.request_id = k.request_id
"""
_PUT_PARTS: Final = """
INSERT INTO privacy_parts (request_id, service, needed, told, reported, tellings, retell_time)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::timestamptz[])
ON CONFLICT (request_id, service) DO UPDATE SET
    needed = excluded.needed, told = excluded.told, tellings = excluded.tellings, retell_time = excluded.retell_time
"""
_RELATED: Final = """
SELECT DISTINCT d.workspace_id, d.digest, own.request_id::text AS request_id FROM privacy_digests AS own
JOIN privacy_digests AS other ON other.workspace_id = own.workspace_id AND other.digest = own.digest
JOIN privacy_requests AS r ON r.request_id = other.request_id AND r.verb = ANY($1::smallint[])
JOIN privacy_digests AS d ON d.request_id = r.request_id
WHERE own.request_id = ANY($2::uuid[])
"""
_MOVE: Final = """
UPDATE privacy_requests AS r SET attempt = k.attempt, looks_left = k.looks_left, due_time = k.due_time
FROM unnest($1::uuid[], $2::integer[], $3::smallint[], $4::timestamptz[]) AS k (request_id, attempt, looks_left, due_time)
WHERE r.request_id = k.request_id
"""
_END: Final = """
UPDATE privacy_requests AS r SET status = k.status, finish_time = $5, due_time = NULL, report = k.report, signature = k.signature,
    public_key = $6, expire_time = CASE WHEN r.verb = 7 THEN $7::timestamptz END,
    subjects = CASE WHEN k.keeps THEN r.subjects END, people = CASE WHEN k.keeps THEN r.people END,
    profile_ids = CASE WHEN k.keeps THEN r.profile_ids ELSE '{}' END
FROM unnest($1::uuid[], $2::smallint[], $3::bytea[], $4::bytea[], $8::boolean[]) AS k (request_id, status, report, signature, keeps)
WHERE r.request_id = k.request_id
"""
_RESUME: Final = """
UPDATE privacy_requests SET due_time = $2, finish_time = NULL, report = NULL, expire_time = NULL, status = $3 WHERE request_id = $1
"""
_SUPPRESSING: Final = [int(verb) for verb in Verb if verb.suppresses]


@dataclass(frozen=True, slots=True)
class PostgresFulfilment:
    """See ``FulfilmentStore``.

    Attributes:
        database: the pool.
        digest: makes digests of ids.
        key: signs reports.
        timing: when things are done again.
        enqueued: called after a commit that left something in the outbox.
    """

    database: Database
    digest: Digester
    key: Ed25519PrivateKey
    timing: Timing
    enqueued: Callable[[], None]

    async def unknown(self, now_us: int, limit: int) -> list[Request]:
        """See ``FulfilmentStore``."""
        async with self.database.session() as connection:
            return [request_of(row) for row in await raw(connection).fetch(_UNKNOWN, moment(now_us), limit)]

    async def postpone(self, requests: Collection[Request], until_us: int) -> None:
        """See ``FulfilmentStore``."""
        async with self.database.session() as connection:
            await raw(connection).execute(_POSTPONE, [request.request_id for request in requests], moment(until_us))

    async def order(self, requests: Sequence[Request], now_us: int) -> None:
        """See ``FulfilmentStore``."""
        async with self.database.transaction() as connection:
            driver = raw(connection)
            # Another replica may have been here since they were looked up.
            free = {row[0] for row in await driver.fetch(_FREE, [request.request_id for request in requests])}
            ordered = [request._replace(order_us=now_us, attempt=1) for request in requests if request.request_id in free]
            if not ordered:
                return
            await self._put_orders(driver, ordered, now_us)
            retell_us = now_us + self.timing.retell_us
            parts = [(one.request_id, Part(service, 1, 1, 0, 1, retell_us)) for one in ordered for service in one.verb.services]
            await _put_parts(driver, parts)
            await keep_digests(driver, ordered, self.digest)
            burials = [burial for request in ordered for burial in request.burials(self.digest)]
            await bury(driver, burials + await _also_unsuppressed(driver, ordered))
            generation = await newest_generation(driver)
            await enqueue(connection, [_order(request, 1, request.verb.services, generation) for request in ordered])
        self.enqueued()

    async def _put_orders(self, driver: Driver, requests: Sequence[Request], now_us: int) -> None:
        await driver.execute(
            _ORDER,
            [request.request_id for request in requests],
            [ids_text(request.people) for request in requests],
            [msgspec.json.encode(request.profile_ids).decode() for request in requests],
            moment(now_us),
            Status.RUNNING,
            moment(now_us + self.timing.retell_us),
        )

    async def report(self, reported: Sequence[Reported], now_us: int) -> list[bool | None]:
        """See ``FulfilmentStore``."""
        async with self.database.transaction() as connection:
            return await take(raw(connection), reported, now_us)

    async def advance(self, now_us: int, limit: int) -> int:
        """See ``FulfilmentStore``."""
        async with self.database.transaction() as connection:
            driver = raw(connection)
            rows = await driver.fetch(_DUE, moment(now_us), limit)
            if not rows:
                return 0
            files = await files_of(driver, [request_of(row) for row in rows])
            moves = [next_move(one.parts, one.reports, one.request.looks_left, self.timing.second_look_us, now_us) for one in files]
            telling = [(one, move) for one, move in zip(files, moves, strict=True) if isinstance(move, Tell)]
            await self._tell(connection, telling, now_us)
            waiting = [(one.request, move.until_us) for one, move in zip(files, moves, strict=True) if not isinstance(move, Tell | End)]
            await _move(driver, waiting)
            await self._end(driver, [(one, move.status) for one, move in zip(files, moves, strict=True) if isinstance(move, End)], now_us)
        if telling:
            self.enqueued()
        return len(rows)

    async def retry(self, workspace_id: str, request_id: str, now_us: int) -> File | None:
        """See ``FulfilmentStore``."""
        async with self.database.transaction() as connection:
            driver = raw(connection)
            row = await driver.fetchrow(f"{REQUEST} WHERE workspace_id = $1 AND request_id = $2 FOR UPDATE", workspace_id, request_id)
            if row is None:
                return None
            (file,) = await files_of(driver, [request_of(row)])
            if file.request.status.is_done:
                return file
            status = file.request.status if file.request.order_us is None else Status.RUNNING
            await driver.execute(_RESUME, request_id, moment(now_us), status)
            if parts := file.retried(now_us + self.timing.retell_us):
                await self._put_told(connection, [(file.request, parts, file.request.looks_left)])
        self.enqueued()
        return file

    async def _tell(self, connection: AsyncConnection, telling: Sequence[tuple[File, Tell]], now_us: int) -> None:
        moved: list[tuple[Request, list[Part], int]] = []
        for file, move in telling:
            attempt = file.request.attempt + 1
            parts = [
                told(part, attempt, move.again, now_us + retell_after_us(part.tellings + 1, self.timing.retell_us))
                for part in file.parts
                if part.service in move.services
            ]
            moved.append((file.request, parts, file.request.looks_left - move.again))
        await self._put_told(connection, moved)

    async def _put_told(self, connection: AsyncConnection, moved: Sequence[tuple[Request, list[Part], int]]) -> None:
        """What was told: (request as it was before, parts as they are then, looks left)."""
        driver = raw(connection)
        await _put_parts(driver, [(request.request_id, part) for request, parts, _ in moved for part in parts])
        after = [(request._replace(attempt=request.attempt + 1, looks_left=left), parts) for request, parts, left in moved]
        await _move(driver, [(request, min(part.retell_us for part in parts)) for request, parts in after])
        orders = [(request, [part.service for part in parts if part.service != CONSENT]) for request, parts in after]
        generation = await newest_generation(driver)
        await enqueue(connection, [_order(request, request.attempt, services, generation) for request, services in orders if services])

    async def _end(self, driver: Driver, ending: Sequence[tuple[File, Status]], now_us: int) -> None:
        if not ending:
            return
        documents = [signed(report_of(_ended(file.request, status, now_us), file.digests, file.steps), self.key) for file, status in ending]
        await driver.execute(
            _END,
            [file.request.request_id for file, _ in ending],
            [status for _, status in ending],
            [document.report for document in documents],
            [document.signature for document in documents],
            moment(now_us),
            documents[0].public_key,
            moment(now_us + self.timing.archive_us),
            # What may be retried needs the ids; an archive says whose it is until it expires.
            [not status.is_done or file.request.verb is Verb.ACCESS for file, status in ending],
        )


async def _put_parts(driver: Driver, parts: Sequence[tuple[str, Part]]) -> None:
    if parts:
        rows = [(request_id, *part[:5], moment(part.retell_us)) for request_id, part in parts]
        await driver.execute(_PUT_PARTS, *zip(*rows, strict=True))


async def _move(driver: Driver, requests: Sequence[tuple[Request, int]]) -> None:
    """Notes attempt, looks left and when each is looked at next."""
    if requests:
        rows = [(request.request_id, request.attempt, request.looks_left, moment(due_us)) for request, due_us in requests]
        await driver.execute(_MOVE, *zip(*rows, strict=True))


async def _also_unsuppressed(driver: Driver, requests: Sequence[Request]) -> list[Burial]:
    """The other ids that were suppressed together with those of unsuppressions: identity may know nothing of them any more."""
    own = {request.request_id: request for request in requests if request.verb is Verb.UNSUPPRESS}
    rows = await driver.fetch(_RELATED, _SUPPRESSING, list(own)) if own else []
    return [Burial(row["workspace_id"], row["digest"], None, False, own[row["request_id"]].create_us) for row in rows]


def _order(request: Request, attempt: int, services: Iterable[str], generation: int) -> OutboxMessage:
    message = order_message(request, attempt, [service for service in services if service != CONSENT], generation)
    return OutboxMessage(topology.privacy(request.verb.kind), message.SerializeToString(), {envelope.SCHEMA: message.DESCRIPTOR.full_name})


def _ended(request: Request, status: Status, now_us: int) -> Ended:
    times = request.create_us, request.order_us or request.create_us, now_us, request.deadline_us
    return Ended(request.request_id, request.workspace_id, request.verb, status, request.regulation, *times)
