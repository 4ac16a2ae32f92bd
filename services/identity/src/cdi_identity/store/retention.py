"""Deleting decisions that changed nothing.

A shared device has one decision per event that had identifiers left out, for ever; all other decisions are as many as there are
identifiers, merges and requests, which name them: for their time, for what undoing a merge needs, for requests that come again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cdi_identity.domain.decisions import Kind
from cdi_runtime.store import Database, raw

CHUNK: Final = 5_000
"""Decisions of one transaction."""

_LOCK: Final = 0x0CD1_0003

# The kind stands in the text: a plan that knows it may use the index of these decisions.
_DELETE: Final = f"""
DELETE FROM decisions WHERE decision_id = ANY(ARRAY(
    SELECT decision_id FROM decisions WHERE kind = {Kind.MATCHED:d} AND decide_time < $1 ORDER BY decide_time LIMIT {CHUNK}
))
"""


class PostgresRetention:
    """The ``DecisionRetention`` on one service's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(self, before: datetime) -> bool:
        """See ``DecisionRetention``."""
        async with self._database.transaction() as connection:
            driver = raw(connection)
            if not await driver.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return False
            deleted: str = await driver.execute(_DELETE, before)
        return deleted == f"DELETE {CHUNK}"
