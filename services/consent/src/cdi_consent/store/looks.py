"""Who has changed since an earlier look, and what is in force of those of whom nothing is remembered: one statement.

A look is exact whatever the order in which transactions commit: it tells the changes that were not visible to the snapshot of the look
before. Changes are removed after a while; who has not looked for longer, or looked at another server, is told that all may have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from cdi_consent.domain.decisions import SUBJECT_TYPES, Decided, Subject
from cdi_consent.ports import Look, Moment
from cdi_consent.store.ledger import STANDINGS, keys_of, standings_of
from cdi_kernel.faults import Transient
from cdi_runtime.store import Database, Readers, raw

MAX_CHANGES: Final = 10_000
"""Changes that one look tells; of more it tells none."""

PRUNE_SECONDS: Final = 5.0
"""A change is told for one to two of these, longer while an older transaction runs."""

# By xid: pg_visible_in_snapshot alone would look at every row. Another postmaster is another server, or the same one after a crash: perhaps
# without the transactions that were committed last.
_CHANGES: Final = f"""
SELECT pg_postmaster_start_time()::text, pg_current_snapshot()::text,
    CASE WHEN {{server}} = pg_postmaster_start_time()::text
        AND pg_snapshot_xmin({{snapshot}}::text::pg_snapshot) >= (SELECT xid FROM change_horizon)
    THEN ARRAY(
        SELECT encode(digest, 'hex') FROM changed_subjects
        WHERE xid >= pg_snapshot_xmin({{snapshot}}::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, {{snapshot}}::text::pg_snapshot)
        ORDER BY xid LIMIT {MAX_CHANGES + 1}
    ) END,
    ARRAY[(SELECT generation::text FROM tombstone_generation)]
"""
_LOOK: Final = _CHANGES.format(server="$1", snapshot="$2")
_LOOK_AND_READ: Final = f"{STANDINGS} UNION ALL {_CHANGES.format(server='$4', snapshot='$5')}"
_NEVER: Final[Moment] = ("", "1:1:")

# Where nothing is removed the horizon stays, and idle replicas go on remembering.
_PRUNE: Final = """
WITH removed AS (DELETE FROM changed_subjects WHERE xid < $1::text::xid8 RETURNING xid)
UPDATE change_horizon SET xid = greatest(xid, $1::text::xid8) WHERE EXISTS (SELECT FROM removed)
"""


class PostgresLooks:
    """See ``Looks``."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def look(self, subjects: Collection[Subject], since: Moment | None) -> Look:
        """See ``Looks``."""
        moment = since or _NEVER
        if subjects:
            rows = await self._readers.fetch(_LOOK_AND_READ, *keys_of(subjects), *moment)
        else:
            rows = await self._readers.fetch(_LOOK, *moment)
        standings: dict[Subject, Decided] = {}
        for row in rows:
            if row[1] in SUBJECT_TYPES:
                standings |= standings_of(row)
        server, snapshot, changed, (generation,) = next(row for row in rows if row[1] not in SUBJECT_TYPES)
        told = None if changed is None or len(changed) > MAX_CHANGES else list(map(bytes.fromhex, changed))
        return Look((server, snapshot), int(generation), told, standings)


async def prune(database: Database) -> None:
    """Removes changes that have been told long enough, until cancelled."""
    horizon: str | None = None
    while True:
        with contextlib.suppress(Transient):
            async with database.transaction() as connection:
                following = await raw(connection).fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
                if horizon is not None:
                    await raw(connection).execute(_PRUNE, horizon)
            horizon = following
        await asyncio.sleep(PRUNE_SECONDS)
