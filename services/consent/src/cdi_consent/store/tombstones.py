"""Tombstones by keyed digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import asyncpg

from cdi_consent.domain.tombstones import Burial, Digest, Tombstone, combined
from cdi_consent.store.instants import moment, moment_or_none
from cdi_kernel.clock import instant_of
from cdi_runtime.store import Database, raw

_FOUND: Final = """
SELECT t.digest, t.erased_before, t.suppressed FROM unnest($1::text[], $2::bytea[]) AS k (workspace_id, digest)
JOIN tombstones AS t USING (workspace_id, digest)
"""

_BURY: Final = """
INSERT INTO tombstones AS t (workspace_id, digest, erased_before, suppressed, suppress_time, generation)
SELECT workspace_id, digest, erased_before, coalesce(suppressed, false), CASE WHEN suppressed IS NOT NULL THEN create_time END, $6
FROM unnest($1::text[], $2::bytea[], $3::timestamptz[], $4::boolean[], $5::timestamptz[])
    AS k (workspace_id, digest, erased_before, suppressed, create_time)
ON CONFLICT (workspace_id, digest) DO UPDATE SET
    erased_before = greatest(t.erased_before, excluded.erased_before),
    suppressed = CASE WHEN excluded.suppress_time >= coalesce(t.suppress_time, excluded.suppress_time)
        THEN excluded.suppressed ELSE t.suppressed END,
    suppress_time = greatest(t.suppress_time, excluded.suppress_time),
    generation = excluded.generation
"""


class PostgresTombstones:
    """See ``TombstoneReader``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, generation: int) -> AsyncIterator[tuple[str, Digest]]:
        """See ``TombstoneReader``."""
        async with self._database.transaction() as connection:
            statement = "SELECT workspace_id, digest FROM tombstones WHERE generation > $1"
            async for workspace_id, digest in raw(connection).cursor(statement, generation, prefetch=5_000):
                yield workspace_id, digest

    async def found(self, keys: Sequence[tuple[str, Digest]]) -> dict[Digest, Tombstone]:
        """See ``TombstoneReader``."""
        columns = zip(*dict.fromkeys(keys), strict=True)
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(_FOUND, *columns)
        return {digest: Tombstone(None if erased is None else instant_of(erased), suppressed) for digest, erased, suppressed in rows}


async def newest_generation(driver: asyncpg.Connection[asyncpg.Record]) -> int:
    """The generation of the newest tombstones, the caller's own included."""
    return int(await driver.fetchval("SELECT generation FROM tombstone_generation"))


async def bury(driver: asyncpg.Connection[asyncpg.Record], burials: Sequence[Burial]) -> None:
    """Writes tombstones in the caller's transaction, which commits before any later one that does so."""
    rows = combined(burials)
    if not rows:
        return
    generation = await driver.fetchval("UPDATE tombstone_generation SET generation = generation + 1 RETURNING generation")
    await driver.execute(
        _BURY,
        [row.workspace_id for row in rows],
        [row.digest for row in rows],
        [moment_or_none(row.erased_before_us) for row in rows],
        [row.suppressed for row in rows],
        [moment(row.create_us) for row in rows],
        generation,
    )
