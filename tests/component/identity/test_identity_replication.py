"""Logical replication of identity's database: every table can be published with updates and deletes, and the copy says the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi.identity.v1.identity_service_pb2 import SplitProfileRequest
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_runtime.store.migrations import upgrade
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE

from .conftest import Client
from .identity_calls import resolve, seen

TABLES = "profiles", "identifiers", "decisions", "merges", "separations", "workspaces"


@pytest.fixture
def logical_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server whose log is detailed enough for logical replication."""
    with PostgresServer(tmp_path / "postgres", durable=False) as server:
        server.execute("ALTER SYSTEM SET wal_level = logical")
        server.restart()
        yield server


async def test_a_published_graph_is_merged_split_and_deleted_and_its_copy_follows(
    logical_postgres: PostgresServer, fresh_nats: NatsServer, tmp_path: Path, client: Client
) -> None:
    urls = [logical_postgres.create_database(name) for name in ("graph", "copy")]
    for url in urls:
        await upgrade(url, "cdi_identity.migrations")
    logical_postgres.execute("CREATE PUBLICATION everything FOR ALL TABLES", "graph")
    logical_postgres.execute("SELECT pg_create_logical_replication_slot('copying', 'pgoutput')", "graph")
    subscription = f"CREATE SUBSCRIPTION copying CONNECTION '{urls[0]}' PUBLICATION everything WITH (create_slot = false)"
    logical_postgres.execute(subscription, "copy")

    with ServiceProcess("identity", {"CDI_NATS_URL": fresh_nats.url, "CDI_DATABASE_URL": urls[0]}, tmp_path / "identity") as identity:
        stub = client(identity)
        ada, phone = await resolve(stub, seen("user_id:ada", "email:e"), seen("anonymous_id:phone"))
        [merged] = await resolve(stub, seen("user_id:ada", "anonymous_id:phone"))
        assert list(merged.merged_profile_ids) == [phone.profile_id]
        part = SplitProfileRequest(workspace_id=WORKSPACE, request_id="r1", profile_id=ada.profile_id, merged_profile_id=phone.profile_id)
        await stub.SplitProfile(part, timeout=20)
    logical_postgres.execute("DELETE FROM identifiers WHERE type = 'email'", "graph")

    def rows(database: str) -> list[str]:
        return [logical_postgres.execute(f"SELECT t FROM {table} t ORDER BY t::text", database) for table in TABLES]

    async def same() -> bool:
        assert rows("copy") == rows("graph")
        return True

    await eventually(same)
    assert logical_postgres.execute("SELECT type, profile_id FROM identifiers ORDER BY type", "copy").splitlines() == [
        f"anonymous_id|{phone.profile_id}",
        f"user_id|{ada.profile_id}",
    ]
