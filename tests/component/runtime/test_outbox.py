"""The outbox with a real Postgres and a real NATS: in order, after the commit, once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from cdi_cli.embedded import NatsServer
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, connect
from cdi_runtime.store import Database, OutboxMessage, OutboxRelay, enqueue
from cdi_testing import eventually

SUBJECT = "cdi.consent.shop"
STREAM: StreamName = "CONSENT"


@pytest.fixture
async def bus(fresh_nats: NatsServer) -> AsyncIterator[Bus]:
    async with connect(fresh_nats.url, "test") as made:
        yield made


@contextlib.asynccontextmanager
async def running(relay: OutboxRelay) -> AsyncIterator[OutboxRelay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


def messages(first: int, count: int) -> list[OutboxMessage]:
    return [OutboxMessage(SUBJECT, str(n).encode(), {"Example": str(n)}) for n in range(first, first + count)]


async def store(database: Database, first: int, count: int) -> None:
    async with database.transaction() as connection:
        await enqueue(connection, messages(first, count))


async def waiting(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one())


async def is_empty(database: Database) -> bool:
    return await waiting(database) == 0


async def published(bus: Bus, count: int) -> list[int]:
    return [int((await bus.message(STREAM, sequence)).payload) for sequence in range(1, count + 1)]


async def stored(bus: Bus) -> int:
    return sum(count.messages for count in (await bus.count_events(STREAM)).values())


async def test_messages_leave_in_order_with_their_headers(database: Database, bus: Bus) -> None:
    await store(database, 0, 1200)
    async with running(OutboxRelay(database, bus, service="consent")) as relay:
        await eventually(lambda: is_empty(database))
        await store(database, 1200, 3)
        relay.wake()
        await eventually(lambda: is_empty(database))
        assert relay.check() is None
    assert await published(bus, 1203) == list(range(1203))
    last = await bus.message(STREAM, 1203)
    assert last.headers["Example"] == "1202"
    assert last.headers["Nats-Msg-Id"].startswith("consent-outbox-1203-")


async def test_what_was_rolled_back_is_never_published(database: Database, bus: Bus) -> None:
    async def fail() -> None:
        async with database.transaction() as connection:
            await enqueue(connection, messages(666, 1))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    await store(database, 0, 1)
    async with running(OutboxRelay(database, bus, service="consent")):
        await eventually(lambda: is_empty(database))
    assert await stored(bus) == 1


async def test_two_relays_publish_each_message_once(database: Database, bus: Bus, migrated_url: str) -> None:
    async with (
        Database.connect(migrated_url) as other,
        running(OutboxRelay(database, bus, service="consent")),
        running(OutboxRelay(other, bus, service="consent")),
    ):
        for page in range(10):
            await store(database, page * 20, 20)
        await eventually(lambda: is_empty(database))
    assert await published(bus, 200) == list(range(200))
    assert await stored(bus) == 200


async def test_the_other_relay_takes_over(database: Database, bus: Bus, migrated_url: str) -> None:
    async with Database.connect(migrated_url) as other, running(OutboxRelay(other, bus, service="consent")):
        async with running(OutboxRelay(database, bus, service="consent")):
            await store(database, 0, 5)
            await eventually(lambda: is_empty(database))
        await store(database, 5, 5)
        await eventually(lambda: is_empty(database))
    assert await published(bus, 10) == list(range(10))


async def test_nats_away_keeps_the_messages_and_their_order(database: Database, bus: Bus, fresh_nats: NatsServer) -> None:
    async with running(OutboxRelay(database, bus, service="consent")) as relay:
        await store(database, 0, 10)
        await eventually(lambda: is_empty(database))
        fresh_nats.stop()
        await store(database, 10, 10)
        relay.wake()
        await eventually(lambda: relay.check() is not None)
        assert await waiting(database) == 10
        fresh_nats.start()
        await eventually(lambda: is_empty(database))
        await eventually(lambda: relay.check() is None)
    assert await published(bus, 20) == list(range(20))


async def test_a_page_published_again_after_a_crash_is_stored_once(database: Database, bus: Bus) -> None:
    """The crash lies between the acknowledgement and the delete: here the delete finds the table locked and the relay dies."""
    await store(database, 0, 10)
    async with database.transaction() as connection:
        await connection.execute(text("LOCK TABLE outbox IN SHARE MODE"))
        async with running(OutboxRelay(database, bus, service="consent")):
            await eventually(lambda: _stored_ten(bus))
    assert await waiting(database) == 10
    async with running(OutboxRelay(database, bus, service="consent")):
        await eventually(lambda: is_empty(database))
    assert await stored(bus) == 10


async def _stored_ten(bus: Bus) -> bool:
    return await stored(bus) == 10


async def test_a_lost_database_connection_is_survived(database: Database, bus: Bus) -> None:
    async with running(OutboxRelay(database, bus, service="consent")):
        await store(database, 0, 1)
        await eventually(lambda: is_empty(database))
        async with database.session() as connection:
            await connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
            )
        await store(database, 1, 1)
        await eventually(lambda: is_empty(database))
    assert await published(bus, 2) == [0, 1]
