"""Transactions against a real Postgres: what is inside them, and which failures are worth another try."""

import asyncio

import pytest
import sqlalchemy.exc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import text

from cdi_runtime import telemetry
from cdi_runtime.store import Database, StoreUnavailable, raw
from cdi_runtime.telemetry import batch_span, providers
from cdi_testing import eventually

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INSERT = text("INSERT INTO example (id, name) VALUES (:id, :name)")


async def count(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM example"))).scalar_one())


async def test_the_raw_connection_is_in_the_transaction_from_its_first_statement(database: Database) -> None:
    async def fail_after_writing() -> None:
        async with database.transaction() as connection:
            await raw(connection).execute("INSERT INTO example (id) SELECT * FROM unnest($1::bigint[])", [1, 2, 3])
            await connection.execute(INSERT, {"id": 4, "name": "four"})
            raise KeyError

    with pytest.raises(KeyError):
        await fail_after_writing()
    assert await count(database) == 0


async def test_what_both_ways_wrote_is_committed_together(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(INSERT, {"id": 4, "name": "four"})
        await raw(connection).copy_records_to_table("example", records=[(1, "one"), (2, "two")], columns=["id", "name"])
    assert await count(database) == 3


async def test_a_lost_connection_is_retryable_and_the_pool_recovers(database: Database) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        async with database.transaction() as connection:
            await raw(connection).execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert caught.value.retryable
    assert await count(database) == 0


async def test_a_connection_lost_in_the_pool_is_replaced(database: Database) -> None:
    async with database.transaction() as connection:
        pooled = raw(connection)
        backend = pooled.get_server_pid()
    async with Database.connect(database.engine.url.render_as_string(hide_password=False)) as other, other.transaction() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
    await eventually(pooled.is_closed)
    assert await count(database) == 0


async def test_a_deadlock_is_retryable_for_its_victim(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(INSERT, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    meet = asyncio.Barrier(2)

    async def update(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE example SET note = 'x' WHERE id = :id"), {"id": first})
            await meet.wait()
            await connection.execute(text("UPDATE example SET note = 'x' WHERE id = :id"), {"id": second})

    outcomes = await asyncio.gather(update(1, 2), update(2, 1), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StoreUnavailable"]


async def test_a_violated_constraint_stays_what_it_is_and_hides_its_values(database: Database) -> None:
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught:
        async with database.transaction() as connection:
            await connection.execute(INSERT, [{"id": 1, "name": "x"}, {"id": 1, "name": "someone"}])
    assert "someone" not in str(caught.value)
    assert await count(database) == 0


async def test_a_server_that_is_away_is_retryable() -> None:
    async with Database.connect("postgresql://u:p@127.0.0.1:1/d") as away:
        with pytest.raises(StoreUnavailable):
            await away.ping()
        with pytest.raises(StoreUnavailable):
            async with away.transaction():
                pass


async def test_a_transaction_in_a_traced_batch_is_one_span(database: Database) -> None:
    exporter = InMemorySpanExporter()
    telemetry.configure("example", "i1", 0.0, exporter=exporter)
    try:
        await count(database)
        with batch_span("load batch", SpanKind.CONSUMER, [SAMPLED]):
            async with database.transaction() as connection:
                await connection.execute(INSERT, {"id": 1, "name": "x"})
                await connection.execute(INSERT, {"id": 2, "name": "y"})
        providers.flush()
    finally:
        telemetry.shut_down()
    assert [span.name for span in exporter.get_finished_spans()] == ["transaction", "load batch"]
