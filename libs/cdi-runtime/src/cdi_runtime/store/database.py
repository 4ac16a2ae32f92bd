"""The connection pool and its transactions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import sqlalchemy.event
import sqlalchemy.exc
from opentelemetry import trace
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from cdi_runtime.store.faults import StoreUnavailable, translated
from cdi_runtime.telemetry import instruments, tracer
from cdi_runtime.telemetry.spans import active

_CONNECT_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
_POOL_WAIT_SECONDS = 10.0


class Database:
    """The pool of one service's database. Made by ``connect``, which does not touch the server yet."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._attributes = {"db.system.name": "postgresql", "db.namespace": engine.url.database or ""}

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str, *, pool_size: int = 5) -> AsyncIterator[Database]:
        """A pool of at most ``pool_size`` connections for the time of the block.

        Args:
            url: ``postgresql://user:password@host:port/database``.
            pool_size: connections; a holder of ``session`` keeps one for itself.
        """
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_SECONDS,
            # The text of a failed statement would carry its parameters, and so personal data, into logs.
            hide_parameters=True,
            connect_args={"timeout": _CONNECT_SECONDS, "command_timeout": _STATEMENT_SECONDS},
        )
        sqlalchemy.event.listen(engine.sync_engine, "checkout", _replace_if_closed)
        try:
            yield cls(engine)
        finally:
            await engine.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back on an exception. Only SQL belongs inside.

        Raises:
            StoreUnavailable: the connection was lost or could not be had, a timeout, a deadlock or a serialization failure.
                After a lost connection during commit it is not known whether the transaction took place.
        """
        started = time.perf_counter()
        outcome = "failed"
        try:
            with translated(), self._span():
                async with self.engine.begin() as connection:
                    await _begin(connection)
                    yield connection
            outcome = "committed"
        finally:
            instruments.STORE_TRANSACTION.record(time.perf_counter() - started, outcome=outcome)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """One connection in autocommit mode, held for the whole block: for session locks. Raises as ``transaction``."""
        with translated():
            async with self.engine.connect() as plain:
                yield await plain.execution_options(isolation_level="AUTOCOMMIT")

    async def ping(self) -> None:
        """Returns when the database answers; raises ``StoreUnavailable`` when not."""
        async with self.session() as connection:
            await connection.execute(text("SELECT 1"))

    def _span(self) -> contextlib.AbstractContextManager[object]:
        # A transaction outside a traced batch is not worth a trace of its own.
        if not trace.get_current_span().is_recording():
            return contextlib.nullcontext()
        return active(tracer().start_span("transaction", kind=trace.SpanKind.CLIENT, attributes=self._attributes))


def raw(connection: AsyncConnection) -> asyncpg.Connection[asyncpg.Record]:
    """The driver's own connection inside the same transaction: COPY, and arrays through ``unnest``, on the hot path."""
    sync = connection.sync_connection
    assert sync is not None, "the connection is not open"
    driver = sync.connection.driver_connection
    assert isinstance(driver, asyncpg.Connection)
    return driver


async def _begin(connection: AsyncConnection) -> None:
    """Sends BEGIN now. SQLAlchemy sends it with its first statement, so what ran through ``raw`` before would not be inside.

    SQLAlchemy has no public call for it; a component test holds this one.
    """
    sync = connection.sync_connection
    assert sync is not None
    adapter: Any = sync.connection.dbapi_connection
    try:
        await adapter._start_transaction()
    except adapter.dbapi.Error as error:
        await connection.invalidate()
        raise StoreUnavailable from error


def _replace_if_closed(driver: Any, _: object, __: object) -> None:
    """A pool listener: a connection that the driver knows to be closed is replaced before it is lent. Costs no round trip."""
    if driver.driver_connection.is_closed():
        raise sqlalchemy.exc.DisconnectionError
