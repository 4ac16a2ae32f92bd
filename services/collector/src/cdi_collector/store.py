"""Sources in Postgres, and the snapshot of them that requests are checked against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.collector.v1 import source_pb2
from cdi.error.v1 import error_pb2
from cdi_collector import convert
from cdi_collector.domain.sources import Source, SourceSnapshot
from cdi_collector.ports import SourceStore
from cdi_collector.tables import sources, write_keys
from cdi_kernel.faults import AlreadyExists, Transient
from cdi_kernel.ids import SourceId, WorkspaceId
from cdi_runtime.store import Database
from cdi_runtime.telemetry import logger

_log = logger(__name__)


class PostgresSources:
    """The ``SourceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, source: Source) -> tuple[Source, bool]:
        """See ``SourceStore``."""
        try:
            async with self._database.transaction() as connection:
                return await self._apply(connection, source)
        except IntegrityError as error:
            metadata = {"resource": "write_key", "name": source.source_id}
            raise AlreadyExists(
                error_pb2.ERROR_REASON_ALREADY_EXISTS, "another source has one of the write keys", metadata=metadata
            ) from error

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[Source]:
        """See ``SourceStore``."""
        statement = (
            select(sources)
            .where(sources.c.workspace_id == workspace_id, sources.c.source_id > after)
            .order_by(sources.c.source_id)
            .limit(limit)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement)).all()
        return [_source(row, ()) for row in rows]

    async def all(self) -> Sequence[Source]:
        """See ``SourceStore``."""
        # A source whose web hooks are signed needs no key.
        hashes = func.array_agg(write_keys.c.key_hash).filter(write_keys.c.key_hash.is_not(None))
        of_source = (write_keys.c.workspace_id == sources.c.workspace_id) & (write_keys.c.source_id == sources.c.source_id)
        statement = select(sources, hashes.label("hashes")).outerjoin(write_keys, of_source).group_by(*sources.c)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement)).all()
        return [_source(row, row.hashes or ()) for row in rows]

    async def _apply(self, connection: AsyncConnection, source: Source) -> tuple[Source, bool]:
        identity = {"workspace_id": source.workspace_id, "source_id": source.source_id}
        made = await connection.execute(
            upsert(sources).values(**identity, disabled=source.disabled, version=0).on_conflict_do_nothing().returning(sources.c.version)
        )
        fresh = made.first() is not None
        stored = await self._locked(connection, source.workspace_id, source.source_id)
        applied = replace(source, version=stored.version + 1)
        if not fresh and replace(source, version=stored.version) == stored:
            return stored, False
        this = (sources.c.workspace_id == source.workspace_id) & (sources.c.source_id == source.source_id)
        webhook = None if applied.webhook is None else convert.webhook_message(applied.webhook).SerializeToString(deterministic=True)
        values = {"disabled": applied.disabled, "version": applied.version, "webhook": webhook}
        await connection.execute(sources.update().where(this).values(values))
        if gone := stored.key_hashes - source.key_hashes:
            await connection.execute(delete(write_keys).where(write_keys.c.key_hash.in_(gone)))
        if new := source.key_hashes - stored.key_hashes:
            await connection.execute(insert(write_keys), [{**identity, "key_hash": digest} for digest in sorted(new)])
        return applied, True

    async def _locked(self, connection: AsyncConnection, workspace_id: WorkspaceId, source_id: SourceId) -> Source:
        this = (sources.c.workspace_id == workspace_id) & (sources.c.source_id == source_id)
        row = (await connection.execute(select(sources).where(this).with_for_update())).one()
        keys = (write_keys.c.workspace_id == workspace_id) & (write_keys.c.source_id == source_id)
        hashes = (await connection.execute(select(write_keys.c.key_hash).where(keys))).scalars().all()
        return _source(row, hashes)


def _source(row: Row[Any], hashes: Iterable[bytes]) -> Source:
    webhook = None if row.webhook is None else convert.webhook_of(source_pb2.Webhook.FromString(row.webhook))
    return Source(row.workspace_id, row.source_id, row.disabled, row.version, frozenset(hashes), webhook)


class SourceDirectory:
    """The ``Directory``: all sources in memory, read again every second or so.

    While the database is away the last snapshot serves on, and ``ready`` says so.
    """

    def __init__(self, store: SourceStore, refresh_seconds: float) -> None:
        self.snapshot = SourceSnapshot(())
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._reason: str | None = "sources not read yet"

    def ready(self) -> str | None:
        """The readiness check: why the sources may be out of date, or ``None``."""
        return self._reason

    async def refresh(self) -> None:
        """See ``Directory``."""
        self.snapshot = SourceSnapshot(await self._store.all())
        self._reason = None

    async def run(self) -> None:
        """Refreshes until cancelled."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
            except Transient as fault:
                if self._reason is None:
                    _log.warning("sources.outdated", reason=fault.reason_name)
                self._reason = f"sources are out of date: {fault.message}"
