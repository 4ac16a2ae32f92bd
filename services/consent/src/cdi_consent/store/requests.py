"""Privacy requests: making and reading them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Final, TypeAlias

import asyncpg
import msgspec

from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.privacy import Part, Report, Status, Verb
from cdi_consent.domain.privacy_report import Signed
from cdi_consent.domain.privacy_request import File, Request
from cdi_consent.domain.tombstones import Digester
from cdi_consent.store.instants import moment
from cdi_consent.store.tombstones import bury
from cdi_kernel.clock import instant_of
from cdi_runtime.store import Database, raw

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

REQUEST: Final = """
SELECT request_id::text AS request_id, workspace_id, verb, status, regulation, subjects::text AS subjects, people::text AS people,
    profile_ids, create_time, deadline_time, order_time, finish_time, attempt, looks_left, lookups
FROM privacy_requests
"""
"""What ``request_of`` reads."""

_IDS: Final = msgspec.json.Decoder(list[tuple[str, str]])

_CREATE: Final = """
INSERT INTO privacy_requests
    (request_id, workspace_id, verb, status, regulation, subjects, create_time, deadline_time, looks_left, due_time)
SELECT request_id, $2, $3, $4, $5, subjects::json, $7, $8, $9, $7 FROM unnest($1::uuid[], $6::text[]) AS k (request_id, subjects)
ON CONFLICT DO NOTHING RETURNING request_id::text
"""

_PAGE: Final = f"""
{REQUEST} WHERE workspace_id = $1 AND ($2::smallint IS NULL OR status = $2) AND (create_time, request_id) < ($3, $4)
ORDER BY create_time DESC, request_id DESC LIMIT $5
"""


class PostgresRequests:
    """See ``RequestStore``."""

    def __init__(self, database: Database, digest: Digester) -> None:
        self._database = database
        self._digest = digest

    async def create(self, requests: Sequence[Request]) -> None:
        """See ``RequestStore``."""
        first = requests[0]
        async with self._database.transaction() as connection:
            driver = raw(connection)
            created = await driver.fetch(
                _CREATE,
                [request.request_id for request in requests],
                first.workspace_id,
                first.verb,
                first.status,
                first.regulation,
                [ids_text(request.subjects) for request in requests],
                moment(first.create_us),
                moment(first.deadline_us),
                first.looks_left,
            )
            known = {row[0] for row in created}
            new = [request for request in requests if request.request_id in known]
            await keep_digests(driver, new, self._digest)
            await bury(driver, [burial for request in new for burial in request.burials(self._digest)])

    async def get(self, workspace_id: str, request_id: str) -> File | None:
        """See ``RequestStore``."""
        async with self._database.session() as connection:
            driver = raw(connection)
            row = await driver.fetchrow(f"{REQUEST} WHERE workspace_id = $1 AND request_id = $2", workspace_id, request_id)
            if row is None:
                return None
            (file,) = await files_of(driver, [request_of(row)])
            return file

    async def page(self, workspace_id: str, status: Status | None, before: tuple[int, str], limit: int) -> list[Request]:
        """See ``RequestStore``."""
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(_PAGE, workspace_id, status, moment(before[0]), before[1], limit)
            return [request_of(row) for row in rows]

    async def report(self, workspace_id: str, request_id: str) -> Signed | None:
        """See ``RequestStore``."""
        statement = "SELECT report, signature, public_key FROM privacy_requests WHERE workspace_id = $1 AND request_id = $2"
        async with self._database.session() as connection:
            row = await raw(connection).fetchrow(statement, workspace_id, request_id)
        return None if row is None or row["report"] is None else Signed(*row)


async def keep_digests(driver: Driver, requests: Iterable[Request], digest: Digester) -> None:
    """Notes which ids the requests concern, those that were found later beside those that were given."""
    rows = [(request.request_id, request.workspace_id, digest(one)) for request in requests for one in request.ids]
    if rows:
        statement = "INSERT INTO privacy_digests SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) ON CONFLICT DO NOTHING"
        await driver.execute(statement, *zip(*rows, strict=True))


async def files_of(driver: Driver, requests: Sequence[Request]) -> list[File]:
    """All that is known of some requests, in their order."""
    ids = [request.request_id for request in requests]
    digests = _grouped(await driver.fetch(_DIGESTS, ids))
    parts = _grouped(await driver.fetch(_PARTS, ids))
    reports = _grouped(await driver.fetch(_REPORTS, ids))
    return [
        File(
            request,
            [row["digest"] for row in digests.get(request.request_id, ())],
            [_part(row) for row in parts.get(request.request_id, ())],
            [report_of(row) for row in reports.get(request.request_id, ())],
        )
        for request in requests
    ]


def request_of(row: asyncpg.Record) -> Request:
    """A row of ``REQUEST``."""
    return Request(
        row["request_id"],
        row["workspace_id"],
        Verb(row["verb"]),
        Status(row["status"]),
        row["regulation"],
        _ids(row["workspace_id"], row["subjects"]),
        instant_of(row["create_time"]),
        instant_of(row["deadline_time"]),
        _ids(row["workspace_id"], row["people"]),
        tuple(row["profile_ids"]),
        None if row["order_time"] is None else instant_of(row["order_time"]),
        None if row["finish_time"] is None else instant_of(row["finish_time"]),
        row["attempt"],
        row["looks_left"],
        row["lookups"],
    )


def report_of(row: asyncpg.Record) -> Report:
    """A row of what a store did."""
    status, report_us = Status(row["status"]), instant_of(row["report_time"])
    return Report(row["service"], row["store"], row["attempt"], status, row["count"], row["detail"], report_us)


def ids_text(subjects: Collection[Subject]) -> str:
    """Ids as they are kept: without their workspace."""
    return msgspec.json.encode([subject[1:] for subject in subjects]).decode()


def _ids(workspace_id: str, text: str | None) -> tuple[Subject, ...]:
    return tuple((workspace_id, kind, value) for kind, value in _IDS.decode(text)) if text else ()


def _part(row: asyncpg.Record) -> Part:
    numbers = row["needed"], row["told"], row["reported"], row["tellings"]
    return Part(row["service"], *numbers, instant_of(row["retell_time"]))


def _grouped(rows: Sequence[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    return {request_id: list(group) for request_id, group in groupby(rows, key=lambda row: row["request_id"])}


_DIGESTS: Final = """
SELECT request_id::text AS request_id, digest FROM privacy_digests WHERE request_id = ANY($1::uuid[]) ORDER BY request_id, digest
"""
_PARTS: Final = """
SELECT request_id::text AS request_id, service, needed, told, reported, tellings, retell_time
FROM privacy_parts WHERE request_id = ANY($1::uuid[]) ORDER BY request_id, service
"""
_REPORTS: Final = """
SELECT request_id::text AS request_id, service, store, attempt, status, count, detail, report_time
FROM privacy_reports WHERE request_id = ANY($1::uuid[]) ORDER BY request_id, service, store, attempt
"""
