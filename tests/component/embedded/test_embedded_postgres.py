"""The embedded Postgres server: databases, restart, crash."""

import os
from pathlib import Path

import asyncpg
import pytest

from cdi_cli.embedded import PostgresServer


async def test_url_connects_as_the_owner_of_a_fresh_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TABLE t (id int)")
        assert await connection.fetchval("SELECT count(*) FROM t") == 0
        assert await connection.fetchval("SHOW shared_buffers") == "64MB"
    finally:
        await connection.close()


async def test_wrong_password_is_refused(database_url: str) -> None:
    user, _, rest = database_url.partition("@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"{user}x@{rest}")


def test_create_database_is_idempotent_and_checks_the_name(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database("twice")
    assert postgres_server.create_database("twice") == url
    postgres_server.drop_database("twice")
    with pytest.raises(ValueError, match="not a database name"):
        postgres_server.create_database("x; DROP TABLE y")


def test_what_is_committed_survives_restart_crash_and_a_second_server(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        port = server.port
        server.create_database("kept")
        server.execute("CREATE TABLE t AS SELECT 1 AS id", "kept")
        server.restart()
        server.execute("INSERT INTO t VALUES (2)", "kept")
        server.kill()
        server.start()
        assert server.port == port
        assert server.execute("SELECT count(*) FROM t", "kept") == "2"
    with PostgresServer(tmp_path) as second:
        assert second.execute("SELECT count(*) FROM t", "kept") == "2"


def test_password_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with PostgresServer(tmp_path, durable=False):
        assert os.stat(tmp_path / "password").st_mode & 0o077 == 0
        assert os.stat(tmp_path / "data").st_mode & 0o077 == 0
