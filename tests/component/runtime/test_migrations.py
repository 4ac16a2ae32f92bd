"""Migrations against a real Postgres."""

import asyncio

import pytest
from sqlalchemy import text

from cdi_runtime.store import Database, SchemaOutdated, StoreUnavailable, verify
from cdi_runtime.store.migrations import upgrade


async def test_an_empty_database_is_refused_and_then_brought_to_the_head(database_url: str, migrations: str) -> None:
    with pytest.raises(SchemaOutdated, match="at empty, expected 0002"):
        await verify(database_url, migrations)
    await upgrade(database_url, migrations)
    await verify(database_url, migrations)
    await upgrade(database_url, migrations)
    async with Database.connect(database_url) as database, database.transaction() as connection:
        await connection.execute(text("SELECT id, name, note FROM example"))
        await connection.execute(text("SELECT id, subject, payload, headers FROM outbox"))


async def test_replicas_may_migrate_at_once(database_url: str, migrations: str) -> None:
    await asyncio.gather(*(upgrade(database_url, migrations) for _ in range(4)))
    await verify(database_url, migrations)


async def test_a_database_behind_the_code_is_refused(migrated_url: str, migrations: str) -> None:
    async with Database.connect(migrated_url) as database, database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaOutdated, match="at 0001, expected 0002"):
        await verify(migrated_url, migrations)


async def test_a_server_that_is_away_is_not_an_outdated_schema(migrations: str) -> None:
    with pytest.raises(StoreUnavailable):
        await verify("postgresql://u:p@127.0.0.1:1/d", migrations)


async def test_a_package_that_does_not_exist_is_said(database_url: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        await upgrade(database_url, "no_such_migrations")
