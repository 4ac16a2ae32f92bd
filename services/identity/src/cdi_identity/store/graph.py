"""The identity graph in Postgres: a few statements per batch, arrays through ``unnest``, never one per event.

Every statement reaches its rows through an index (``indexed_only``). READ COMMITTED is enough and meant: the statement after the one
that takes the lock sees all that the last holder committed, while a transaction-wide snapshot would be older than the lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event

from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.rules import Rules
from cdi_identity.ports import GraphWriter, Lookup, StoredProfile
from cdi_identity.store import decisions
from cdi_identity.store.computed_values import DOCUMENTS
from cdi_identity.store.graph_writer import PostgresGraphWriter
from cdi_identity.store.literals import array, documents
from cdi_identity.store.locking import hold
from cdi_identity.store.lookups import look_up
from cdi_identity.store.rules import read_rules
from cdi_runtime.store import Database, Readers, raw


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
        self._fetch = readers.fetch

    async def look_up(self, identifiers: Sequence[Identifier], workspace_ids: Sequence[str], since: Mapping[str, int]) -> Lookup:
        """See ``GraphStore``."""
        return await look_up(self._fetch, identifiers, workspace_ids, since)

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

    async def decisions(self, profile: StoredProfile, before_id: int | None, limit: int) -> Sequence[tuple[int, Decision]]:
        """See ``GraphStore``."""
        async with self._database.transaction() as connection:
            return await decisions.of_profile(connection, profile, before_id, limit)

    async def decision_of_message(self, workspace_id: str, message_id: str) -> Decision | None:
        """See ``GraphStore``."""
        async with self._database.transaction() as connection:
            return await decisions.of_message(connection, workspace_id, message_id)
