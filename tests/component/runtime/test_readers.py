"""Reading over kept connections against a real Postgres: they are used again, and lost ones are replaced."""

import asyncio

import pytest

from cdi_runtime.store import Database, Readers, StoreUnavailable
from cdi_testing import eventually

PID = "SELECT pg_backend_pid() AS pid"


async def test_a_connection_is_kept_and_statements_at_once_are_bounded(database: Database) -> None:
    async with Readers(database, 2) as readers:
        [[first]] = await readers.fetch(PID)
        [[second]] = await readers.fetch(PID)
        assert first == second
        rows = await asyncio.gather(*(readers.fetch("SELECT pg_backend_pid() FROM pg_sleep($1)", 0.01) for _ in range(6)))
        assert len({row[0][0] for row in rows}) == 2


async def test_a_lost_connection_is_retryable_and_replaced(database: Database) -> None:
    async with Readers(database, 1) as readers:
        with pytest.raises(StoreUnavailable):
            await readers.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
        [[kept]] = await readers.fetch(PID)
        async with Readers(database, 1) as other:
            await other.fetch("SELECT pg_terminate_backend($1)", kept)
        [(_, driver)] = readers._idle
        await eventually(driver.is_closed)
        [[fresh]] = await readers.fetch(PID)
        assert fresh != kept


async def test_a_reader_that_leaves_in_mid_statement_leaves_nothing_behind(database: Database) -> None:
    async with Readers(database, 1) as readers:
        leaving = asyncio.create_task(readers.fetch("SELECT pg_sleep(30)"))

        async def sleeping() -> bool:
            async with Readers(database, 1) as other:
                return bool(await other.fetch("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"))

        await eventually(sleeping)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        [[answer]] = await readers.fetch("SELECT 7")
        assert answer == 7
