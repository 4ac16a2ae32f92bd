"""The identity graph in Postgres: a few statements per batch, arrays through ``unnest``, never one per event.

Every statement reaches its rows through an index (``indexed_only``). READ COMMITTED is enough and meant: the statement after the one
that takes the lock sees all that the last holder committed, while a transaction-wide snapshot would be older than the lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import event

from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.rules import Rules
from cdi_identity.ports import GraphWriter, Lookup, StoredProfile
from cdi_identity.store import decisions
from cdi_identity.store.computed_values import DOCUMENT, DOCUMENTS
from cdi_identity.store.graph_writer import PostgresGraphWriter
from cdi_identity.store.literals import array, documents, microseconds
from cdi_identity.store.locking import hold
from cdi_identity.store.lookups import look_up
from cdi_identity.store.rules import read_rules
from cdi_runtime.store import Database, Readers, raw

_ID_OF_IDENTIFIER: Final = "(SELECT profile_id FROM identifiers WHERE ARRAY[workspace_id, type, value] = ARRAY[$1, $2, $3])"
_ID_OF_ID: Final = "(SELECT coalesce(canonical_profile_id, profile_id) FROM profiles WHERE workspace_id = $1 AND profile_id = $2::uuid)"

# One statement, so that a merge in between cannot tear the answer.
_READ_PROFILE: Final = f"""
SELECT p.profile_id::text, p.workspace_id, p.traits, p.create_time,
    (SELECT array_agg(ARRAY[i.type, i.value] ORDER BY i.type, i.value) FROM identifiers i WHERE i.profile_id = p.profile_id) AS identifiers,
    m.merged, m.documents, {DOCUMENT} AS computed
FROM profiles p, LATERAL (
    SELECT array_agg(m.profile_id::text ORDER BY m.ordinal) AS merged, array_agg(m.traits ORDER BY m.ordinal) AS documents
    FROM profiles m WHERE p.merges > 0 AND m.canonical_profile_id = p.profile_id
) m
WHERE p.profile_id = """
_READ_BY_IDENTIFIER: Final = _READ_PROFILE + _ID_OF_IDENTIFIER
_READ_BY_ID: Final = _READ_PROFILE + _ID_OF_ID


def indexed_only(database: Database) -> None:
    """Forbids sequential scans to the connections that the pool makes from now on.

    Every access here is by key. Without this, a plan that is kept since the tables were small reads them whole for each key once they
    have grown, until the next ANALYZE.
    """

    @event.listens_for(database.engine.sync_engine, "connect")
    def forbid(connection: Any, _: object) -> None:
        connection.run_async(lambda driver: driver.execute("SET enable_seqscan = off"))


class PostgresGraph:
    """The ``GraphStore`` on one service's database."""

    def __init__(self, database: Database, readers: Readers) -> None:
        self._database = database
        self._readers = readers

    async def look_up(self, identifiers: Sequence[Identifier], workspace_ids: Sequence[str], since: Mapping[str, int]) -> Lookup:
        """See ``GraphStore``."""
        # One statement is one snapshot by itself: BEGIN and COMMIT would be two more round trips.
        async with self._database.session() as connection:
            return await look_up(connection, identifiers, workspace_ids, since)

    @asynccontextmanager
    async def changing(self, workspace_ids: Iterable[str]) -> AsyncIterator[GraphWriter]:
        """See ``GraphStore``."""
        async with self._database.transaction() as connection:
            await hold(connection, workspace_ids)
            yield PostgresGraphWriter(connection)

    async def rules(self, workspace_id: str) -> Rules:
        """See ``GraphStore``."""
        async with self._database.session() as connection:
            return await read_rules(connection, workspace_id)

    async def documents(self, profile_ids: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
        """See ``GraphStore``."""
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(DOCUMENTS, array(profile_ids))
        return {row[0]: documents(row) for row in rows}

    async def profile_by_id(self, workspace_id: str, profile_id: str) -> StoredProfile | None:
        """See ``GraphStore``."""
        return await self._read(_READ_BY_ID, workspace_id, profile_id)

    async def profile_by_identifier(self, identifier: Identifier) -> StoredProfile | None:
        """See ``GraphStore``."""
        return await self._read(_READ_BY_IDENTIFIER, *identifier)

    async def decisions(self, profile: StoredProfile, before_id: int | None, limit: int) -> Sequence[tuple[int, Decision]]:
        """See ``GraphStore``."""
        async with self._database.transaction() as connection:
            return await decisions.of_profile(connection, profile, before_id, limit)

    async def decision_of_message(self, workspace_id: str, message_id: str) -> Decision | None:
        """See ``GraphStore``."""
        async with self._database.transaction() as connection:
            return await decisions.of_message(connection, workspace_id, message_id)

    async def _read(self, statement: str, *arguments: str) -> StoredProfile | None:
        rows = await self._readers.fetch(statement, *arguments)
        if not rows:
            return None
        row = rows[0]
        return StoredProfile(
            profile_id=row["profile_id"],
            workspace_id=row["workspace_id"],
            identifiers=[(row["workspace_id"], kind, value) for kind, value in row["identifiers"] or ()],
            documents=documents(row),
            merged_profile_ids=row["merged"] or [],
            create_us=microseconds(row["create_time"]),
        )
