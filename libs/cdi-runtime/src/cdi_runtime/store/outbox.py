"""The outbox: a message is stored in the transaction that causes it, and published afterwards by a relay.

Order: rows leave in the order of their ids. Two transactions that lock the same row before they enqueue therefore publish in
the order of their commits; transactions that share no lock have no order. Delivery is at-least-once: after a crash between
PubAck and delete the rows are published again under the same message id, which JetStream drops inside its duplicate window.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson
from asyncpg import Record
from sqlalchemy import BigInteger, Column, DateTime, Identity, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_kernel.faults import Fault
from cdi_runtime.bus.message import Outgoing, PubAck
from cdi_runtime.store.database import Database, raw
from cdi_runtime.telemetry import instruments
from cdi_runtime.telemetry.logs import logger

PAGE = 500
PAGE_BYTES = 8 * 1024 * 1024
"""Messages, and about how many bytes of them, that the relay holds in memory at once."""
_POLL_SECONDS = 1.0
_BACKOFF_SECONDS = (0.1, 5.0)
_LOCK = 0x0CD1_0002

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message to publish after the commit."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Publisher(Protocol):
    """The bus as the relay sees it; ``cdi_runtime.bus.Bus`` is one."""

    async def publish_all(self, messages: Sequence[Outgoing]) -> Sequence[PubAck]:
        """Publishes in order and returns when all are stored.

        Raises:
            Fault: at least one is not known to be stored.
        """
        ...


def outbox_table(metadata: MetaData) -> Table:
    """The table ``outbox``, for a service's ``tables.py`` and its first migration."""
    return Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("subject", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("enqueue_time", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    )


OUTBOX_DDL = """
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL,
    enqueue_time timestamptz NOT NULL DEFAULT now()
)
"""
"""The same table as a statement: ``op.execute(OUTBOX_DDL)``."""


async def enqueue(connection: AsyncConnection, messages: Sequence[OutboxMessage]) -> None:
    """Stores messages in the caller's transaction, one statement for all. Call ``relay.wake()`` after the commit."""
    if not messages:
        return
    await raw(connection).execute(
        "INSERT INTO outbox (subject, payload, headers)"
        " SELECT subject, payload, headers::jsonb FROM unnest($1::text[], $2::bytea[], $3::text[])"
        " WITH ORDINALITY AS m (subject, payload, headers, position) ORDER BY position",
        [message.subject for message in messages],
        [message.payload for message in messages],
        [orjson.dumps(dict(message.headers)).decode() for message in messages],
    )


class OutboxRelay:
    """Publishes the outbox in order. Every replica runs one; a session lock lets exactly one of them work."""

    def __init__(self, database: Database, bus: Publisher, *, service: str) -> None:
        self._database = database
        self._bus = bus
        self._service = service
        self._wake = asyncio.Event()
        self._reason: str | None = None

    def wake(self) -> None:
        """Says that there is something new; without it the next poll finds it."""
        self._wake.set()

    def check(self) -> str | None:
        """The readiness check: why nothing leaves, or ``None``."""
        return self._reason

    async def run(self) -> None:
        """Relays until cancelled. Faults are retried with backoff and shown by ``check``."""
        shortest, longest = _BACKOFF_SECONDS
        pause = shortest
        while True:
            try:
                async with self._database.session() as connection:
                    if await self._lead(connection):
                        await self._relay(connection)
                self._reason = None
                await asyncio.sleep(_POLL_SECONDS)
            except Fault as fault:
                pause = shortest if self._reason is None else min(pause * 2, longest)
                self._reason = fault.message
                log.warning("outbox.waiting", reason=fault.reason_name, seconds=pause)
                await asyncio.sleep(pause)

    async def _lead(self, connection: AsyncConnection) -> bool:
        result = await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK})
        return bool(result.scalar_one())

    async def _relay(self, connection: AsyncConnection) -> None:
        """Works through the table as its only relay, for as long as this connection (and with it the lock) lives."""
        try:
            while True:
                self._wake.clear()
                full = await self._publish_page(connection)
                self._reason = None
                if not full:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECONDS):
                            await self._wake.wait()
        finally:
            await self._step_down(connection)

    async def _publish_page(self, connection: AsyncConnection) -> bool:
        """Publishes the oldest rows; returns whether there may be more."""
        driver = raw(connection)
        rows = await driver.fetch(
            "SELECT id, subject, payload, headers::text AS headers,"
            " (extract(epoch FROM enqueue_time) * 1000000)::bigint AS enqueued"
            " FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload) AS before"
            " FROM outbox ORDER BY id LIMIT $1) page WHERE before < $2 ORDER BY id",
            PAGE,
            PAGE_BYTES,
        )
        if not rows:
            return False
        await self._bus.publish_all([self._outgoing(row) for row in rows])
        # By id, not by range: a row with a lower id may have been committed since the page was read.
        await driver.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
        instruments.OUTBOX_PUBLISHED.add(len(rows))
        return len(rows) == PAGE or sum(len(row["payload"]) for row in rows) >= PAGE_BYTES

    def _outgoing(self, row: Record) -> Outgoing:
        # The time keeps ids apart when a database is made anew under the same stream.
        message_id = f"{self._service}-outbox-{row['id']}-{row['enqueued']}"
        return Outgoing(row["subject"], row["payload"], message_id, orjson.loads(row["headers"]))

    async def _step_down(self, connection: AsyncConnection) -> None:
        """Gives the lock back before the pool lends the connection to somebody else; closing the connection does so too."""
        try:
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
        except BaseException:
            await connection.invalidate()
            raise
