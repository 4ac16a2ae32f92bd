"""Sources in Postgres, and the snapshot of them that requests are checked against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Table, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.collector.v1 import source_pb2
from cdi.error.v1 import error_pb2
from cdi_collector.convert.sources import webhook_message, webhook_of
from cdi_collector.domain.protection import Protection
from cdi_collector.domain.rate_limit import RateLimit
from cdi_collector.domain.sources import Source, SourceSnapshot
from cdi_collector.ports import SourceStore
from cdi_collector.tables import sources, write_keys
from cdi_kernel.faults import AlreadyExists, NotFound, Transient
from cdi_runtime.store import Database
from cdi_runtime.telemetry import logger

_log = logger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresSources:
    """The ``SourceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, source: Source) -> tuple[Source, bool]:
        """See ``SourceStore``."""
        async with self._changing(source) as connection:
            fresh = await self._insert(connection, source)
            stored = await self._locked(connection, source.workspace_id, source.source_id)
            if not fresh and replace(source, version=stored.version) == stored:
                return stored, False
            return await self._save(connection, stored, source), True

    async def create(self, source: Source) -> Source:
        """See ``SourceStore``."""
        async with self._changing(source) as connection:
            if not await self._insert(connection, source):
                metadata = {"resource": "source", "name": source.source_id}
                raise AlreadyExists(error_pb2.ERROR_REASON_ALREADY_EXISTS, "there is such a source", metadata=metadata)
            return await self._save(connection, await self._locked(connection, source.workspace_id, source.source_id), source)

    async def change(self, workspace_id: str, source_id: str, decide: Callable[[Source], Source]) -> Source:
        """See ``SourceStore``."""
        async with self._database.transaction() as connection:
            stored = await self._locked(connection, workspace_id, source_id)
            wanted = decide(stored)
            return stored if wanted == stored else await self._save(connection, stored, wanted)

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[Source]:
        """See ``SourceStore``."""
        within = (sources.c.workspace_id == workspace_id) & (sources.c.source_id > after)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_WITH_KEYS.where(within).order_by(sources.c.source_id).limit(limit))).all()
        return [_source(row, _keys(row)) for row in rows]

    async def all(self) -> Sequence[Source]:
        """See ``SourceStore``."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_WITH_KEYS)).all()
        return [_source(row, _keys(row)) for row in rows]

    @asynccontextmanager
    async def _changing(self, source: Source) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._database.transaction() as connection:
                yield connection
        except IntegrityError as error:
            metadata = {"resource": "write_key", "name": source.source_id}
            raise AlreadyExists(
                error_pb2.ERROR_REASON_ALREADY_EXISTS, "another source has one of the write keys", metadata=metadata
            ) from error

    async def _insert(self, connection: AsyncConnection, source: Source) -> bool:
        """Makes an empty source of version 0, unless it is there; returns whether it did."""
        values = {"workspace_id": source.workspace_id, "source_id": source.source_id, "disabled": source.disabled, "version": 0}
        made = await connection.execute(upsert(sources).values(values).on_conflict_do_nothing().returning(sources.c.version))
        return made.first() is not None

    async def _save(self, connection: AsyncConnection, stored: Source, wanted: Source) -> Source:
        saved = replace(wanted, version=stored.version + 1)
        identity = {"workspace_id": saved.workspace_id, "source_id": saved.source_id}
        await connection.execute(sources.update().where(_is(sources, **identity)).values(_values(saved)))
        before, after = _expiries(stored), _expiries(saved)
        if gone := [digest for digest in before if digest not in after or before[digest] != after[digest]]:
            await connection.execute(delete(write_keys).where(write_keys.c.key_hash.in_(gone)))
        if new := [digest for digest in after if digest not in before or before[digest] != after[digest]]:
            rows = [{**identity, "key_hash": digest, "expire_time": after[digest]} for digest in sorted(new)]
            await connection.execute(insert(write_keys), rows)
        return saved

    async def _locked(self, connection: AsyncConnection, workspace_id: str, source_id: str) -> Source:
        row = (await connection.execute(select(sources).where(_is(sources, workspace_id, source_id)).with_for_update())).first()
        if row is None:
            metadata = {"resource": "source", "name": source_id}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is no such source", metadata=metadata)
        own = _is(write_keys, workspace_id, source_id)
        await connection.execute(delete(write_keys).where(own, write_keys.c.expire_time <= func.now()))
        keys = await connection.execute(select(write_keys.c.key_hash, write_keys.c.expire_time).where(own))
        return _source(row, [(key.key_hash, key.expire_time) for key in keys])


_VALID: Final = write_keys.c.expire_time.is_(None) | (write_keys.c.expire_time > func.now())
# A source whose web hooks are signed needs no key.
_WITH_KEYS: Final = (
    select(
        sources,
        func.array_agg(write_keys.c.key_hash).filter(write_keys.c.key_hash.is_not(None)).label("hashes"),
        func.array_agg(write_keys.c.expire_time).filter(write_keys.c.key_hash.is_not(None)).label("expire_times"),
    )
    .outerjoin(
        write_keys,
        (write_keys.c.workspace_id == sources.c.workspace_id) & (write_keys.c.source_id == sources.c.source_id) & _VALID,
    )
    .group_by(*sources.c)
)


def _is(table: Table, workspace_id: str, source_id: str) -> ColumnElement[bool]:
    return (table.c.workspace_id == workspace_id) & (table.c.source_id == source_id)


def _keys(row: Row[Any]) -> Iterable[tuple[bytes, datetime | None]]:
    return zip(row.hashes or (), row.expire_times or (), strict=True)


def _expiries(source: Source) -> dict[bytes, datetime | None]:
    """Every key of a source and when it ends."""
    ends = {digest: _EPOCH + timedelta(microseconds=when) for digest, when in source.expiries.items()}
    return {digest: ends.get(digest) for digest in source.key_hashes}


def _values(source: Source) -> dict[str, Any]:
    protection, limit = source.protection, source.protection.rate_limit
    return {
        "disabled": source.disabled,
        "version": source.version,
        "webhook": None if source.webhook is None else webhook_message(source.webhook).SerializeToString(deterministic=True),
        "allowed_origins": list(protection.allowed_origins),
        "ip_handling": protection.ip_handling,
        "rate_events_per_second": None if limit is None else limit.events_per_second,
        "rate_burst": None if limit is None else limit.burst,
    }


def _source(row: Row[Any], keys: Iterable[tuple[bytes, datetime | None]]) -> Source:
    expire_times = dict(keys)
    rate = None if row.rate_events_per_second is None else RateLimit(row.rate_events_per_second, row.rate_burst)
    return Source(
        row.workspace_id,
        row.source_id,
        row.disabled,
        row.version,
        frozenset(expire_times),
        None if row.webhook is None else webhook_of(source_pb2.Webhook.FromString(row.webhook)),
        Protection(tuple(row.allowed_origins), row.ip_handling, rate),
        {digest: (when - _EPOCH) // timedelta(microseconds=1) for digest, when in expire_times.items() if when is not None},
    )


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
