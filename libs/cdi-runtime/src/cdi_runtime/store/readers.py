"""Reading by single statements at a high rate.

What the pool does for one loan costs two or three times as much as a small statement itself, and BEGIN and COMMIT would be two more round
trips. So a few connections are kept out of the pool, and each statement is a snapshot of its own.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self, TypeAlias

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_runtime.store.database import Database, raw
from cdi_runtime.store.faults import translated

_Kept: TypeAlias = tuple[AsyncConnection, "asyncpg.Connection[asyncpg.Record]"]
"""A connection and the driver's own one in it: to find it costs as much as a tenth of a statement."""


class Readers:
    """Connections that are kept between statements; the driver prepares each text once per connection.

    ``async with Readers(database, 4) as readers``: at its end they go back to the pool.

    Args:
        database: lends them; its pool must hold them all beside what others need.
        size: statements at once; further ones wait.
    """

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._places = asyncio.Semaphore(size)
        self._idle: list[_Kept] = []

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        async with self._places:
            kept = await self._take()
            try:
                rows = await kept[1].fetch(statement, *arguments)
            except BaseException:
                with translated():
                    # It may be lost, or in the middle of an answer that nobody waits for any more.
                    await _drop(kept)
                    raise
            self._idle.append(kept)
            return rows

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._idle:
            await self._idle.pop()[0].close()

    async def _take(self) -> _Kept:
        while self._idle:
            kept = self._idle.pop()
            if not kept[1].is_closed():
                return kept
            with translated():
                await _drop(kept)
        with translated():
            fresh = self._database.engine.connect()
            await fresh.start()
            await fresh.execution_options(isolation_level="AUTOCOMMIT")
            driver = raw(fresh)
            # Statements by key have one good plan; making it anew for every array of keys costs several times as much as running it.
            await driver.execute("SET plan_cache_mode = force_generic_plan")
            return fresh, driver


async def _drop(kept: _Kept) -> None:
    await kept[0].invalidate()
    await kept[0].close()
