"""What services report of privacy requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cdi_consent.domain.privacy import Report, Status, better
from cdi_consent.ports import Reported
from cdi_consent.store.instants import moment
from cdi_consent.store.requests import Driver, report_of

# In one order, so that replicas that take reports of the same requests wait for each other and never deadlock.
_ASKED: Final = """
SELECT r.request_id::text AS request_id, p.service, r.attempt, r.due_time FROM privacy_requests AS r
JOIN privacy_parts AS p ON p.request_id = r.request_id
JOIN (SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[])) AS k (request_id, service)
    ON k.request_id = p.request_id AND k.service = p.service
ORDER BY r.request_id FOR UPDATE OF r
"""
_REPORTED: Final = """
SELECT request_id::text AS request_id, service, store, attempt, status, count, detail, report_time FROM privacy_reports
WHERE (request_id, service, attempt) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[]))
"""
_PUT_REPORTS: Final = """
INSERT INTO privacy_reports (request_id, service, store, attempt, status, count, detail, report_time)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::smallint[], $6::bigint[], $7::text[], $8::timestamptz[])
ON CONFLICT (request_id, service, store, attempt) DO UPDATE
    SET status = excluded.status, count = excluded.count, detail = excluded.detail, report_time = excluded.report_time
"""
_MARK_REPORTED: Final = """
UPDATE privacy_parts AS p SET reported = greatest(p.reported, k.attempt)
FROM (
    SELECT request_id, service, max(attempt) AS attempt
    FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS k (request_id, service, attempt)
    WHERE NOT EXISTS (
        SELECT FROM privacy_reports AS r
        WHERE r.request_id = k.request_id AND r.service = k.service AND r.attempt = k.attempt AND r.status = $4
    )
    GROUP BY request_id, service
) AS k
WHERE p.request_id = k.request_id AND p.service = k.service
"""
_WAKE: Final = """
UPDATE privacy_requests AS r SET due_time = $2
WHERE r.request_id = ANY($1::uuid[]) AND r.due_time IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM privacy_parts AS p WHERE p.request_id = r.request_id AND p.reported < p.needed)
"""


async def take(driver: Driver, reported: Sequence[Reported], now_us: int) -> list[bool | None]:
    """Takes reports in the caller's transaction; see ``FulfilmentStore.report``."""
    asked = [(one.request_id, one.service) for one in reported]
    rows = {(row["request_id"], row["service"]): row for row in await driver.fetch(_ASKED, *zip(*asked, strict=True))}
    answers = [None if (row := rows.get(key)) is None else one.attempt <= row["attempt"] for key, one in zip(asked, reported, strict=True)]
    open_ones = [one for key, one, taken in zip(asked, reported, answers, strict=True) if taken and rows[key]["due_time"] is not None]
    if open_ones:
        attempts = [(one.request_id, one.service, one.attempt) for one in open_ones]
        await record(driver, attempts, [(one.request_id, report) for one in open_ones for report in one.reports], now_us)
    return answers


async def record(driver: Driver, attempts: Iterable[tuple[str, str, int]], reports: Sequence[tuple[str, Report]], now_us: int) -> None:
    """Takes reports, in the caller's transaction, which has locked the requests.

    Args:
        driver: its connection.
        attempts: who has reported: request, service, attempt.
        reports: of these, by request.
        now_us: now.
    """
    columns = tuple(zip(*attempts, strict=True))
    kept = {(row["request_id"], row["service"], row["store"], row["attempt"]): row for row in await driver.fetch(_REPORTED, *columns)}
    rows: dict[tuple[str, str, str, int], Report] = {}
    for request_id, report in reports:
        key = request_id, report.service, report.store, report.attempt
        known = rows.get(key) or (report_of(kept[key]) if key in kept else report)
        rows[key] = better(known, report)
    if rows:
        values = [(*key, one.status, one.counted, one.detail, moment(one.report_us)) for key, one in rows.items()]
        await driver.execute(_PUT_REPORTS, *zip(*values, strict=True))
    await driver.execute(_MARK_REPORTED, *columns, Status.RUNNING)
    await driver.execute(_WAKE, columns[0], moment(now_us))
