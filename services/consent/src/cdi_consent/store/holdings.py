"""What services hold about the person of an access request, as they sent it, until the archive expires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdi_consent.domain.archive import Piece
from cdi_consent.domain.privacy import Status, Verb
from cdi_consent.ports import ArchiveState
from cdi_consent.store.instants import moment
from cdi_consent.store.requests import Driver
from cdi_kernel.faults import Unavailable
from cdi_runtime.store import Database, raw

PAGE: Final = 16
"""Pieces, of mostly 256 KiB at most, that are in memory at once."""

_ADD: Final = "INSERT INTO privacy_holdings (holdings_id, part, request_id, service, holding, rows) VALUES ($1, $2, $3, $4, $5, $6)"
_PIECES: Final = """
SELECT h.service, h.holding, h.part, h.rows FROM privacy_parts AS p JOIN privacy_holdings AS h USING (holdings_id)
WHERE p.request_id = $1 AND (h.service, h.holding, h.part) > ($2, $3, $4) AND (NOT $5 OR (h.service, h.holding) = ($2, $3))
ORDER BY h.service, h.holding, h.part LIMIT $6
"""
_EXPIRE: Final = """
WITH expired AS (
    UPDATE privacy_requests SET expire_time = NULL, subjects = NULL, people = NULL, profile_ids = '{}'
    WHERE expire_time <= $1 RETURNING request_id
)
DELETE FROM privacy_holdings USING expired WHERE privacy_holdings.request_id = expired.request_id
"""


class PostgresHoldings:
    """See ``HoldingStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_asked(self, request_id: str, service: str) -> bool:
        """See ``HoldingStore``."""
        statement = """
            SELECT 1 FROM privacy_requests JOIN privacy_parts USING (request_id)
            WHERE request_id = $1 AND service = $2 AND verb = $3 AND due_time IS NOT NULL
        """
        async with self._database.session() as connection:
            return await raw(connection).fetchval(statement, request_id, service, Verb.ACCESS) is not None

    async def add(self, holdings_id: str, part: int, request_id: str, service: str, holding: str, rows: Sequence[bytes]) -> None:
        """See ``HoldingStore``."""
        async with self._database.session() as connection:
            await add_holding(raw(connection), holdings_id, part, request_id, service, holding, rows)

    async def put(self, holdings_id: str, parts: int, request_id: str, service: str) -> None:
        """See ``HoldingStore``."""
        async with self._database.transaction() as connection:
            driver = raw(connection)
            await driver.execute("SELECT 1 FROM privacy_parts WHERE request_id = $1 AND service = $2 FOR UPDATE", request_id, service)
            count = await driver.fetchval("SELECT count(*) FROM privacy_holdings WHERE holdings_id = $1", holdings_id)
            if count != parts:
                raise Unavailable("consent", "another call of the same service came between")
            await put_holdings(driver, holdings_id, request_id, service)

    async def state(self, workspace_id: str, request_id: str) -> ArchiveState | None:
        """See ``HoldingStore``."""
        statement = "SELECT verb, status, expire_time IS NOT NULL FROM privacy_requests WHERE workspace_id = $1 AND request_id = $2"
        async with self._database.session() as connection:
            row = await raw(connection).fetchrow(statement, workspace_id, request_id)
        return None if row is None else ArchiveState(Verb(row[0]), Status(row[1]), row[2])

    async def pieces(self, request_id: str, after: Piece | None, within: bool) -> list[Piece]:
        """See ``HoldingStore``."""
        service, holding, part = ("", "", -1) if after is None else after[:3]
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(_PIECES, request_id, service, holding, part, within, PAGE)
        return [Piece(*row) for row in rows]

    async def expire(self, now_us: int) -> None:
        """See ``HoldingStore``."""
        async with self._database.session() as connection:
            await raw(connection).execute(_EXPIRE, moment(now_us))


async def add_holding(
    driver: Driver, holdings_id: str, part: int, request_id: str, service: str, holding: str, rows: Sequence[bytes]
) -> None:
    """Keeps rows, which count once ``put_holdings`` was called."""
    await driver.execute(_ADD, holdings_id, part, request_id, service, holding, b"".join(row + b"\n" for row in rows))


async def put_holdings(driver: Driver, holdings_id: str, request_id: str, service: str) -> None:
    """Makes these what the service holds, in the place of what it sent before."""
    await driver.execute(
        "UPDATE privacy_parts SET holdings_id = $3 WHERE request_id = $1 AND service = $2", request_id, service, holdings_id
    )
    await driver.execute(
        "DELETE FROM privacy_holdings WHERE request_id = $1 AND service = $2 AND holdings_id <> $3", request_id, service, holdings_id
    )
