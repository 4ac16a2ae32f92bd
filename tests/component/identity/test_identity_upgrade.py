"""Migrations on a filled database: what the first schema kept goes on."""

import json
from pathlib import Path

import asyncpg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cdi.identity.v1.identity_service_pb2 import ExplainProfileRequest, SplitProfileRequest
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_runtime.store.migrations import upgrade
from cdi_runtime.store.schema import connection_of, folder_of
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import new_database_name

from .conftest import Client
from .identity_calls import names, profile_of, resolve, seen

MIGRATIONS = "cdi_identity.migrations"
OLDER, YOUNGER, ALONE = (f"018f0000-0000-7000-8000-00000000000{number}" for number in range(3))

# As the first schema's service left it: the younger profile is part of the older one, whose document holds the traits of both.
FILLING = f"""
INSERT INTO profiles (profile_id, workspace_id, canonical_profile_id, merges, traits, create_time) VALUES
    ('{OLDER}', '{WORKSPACE}', NULL, 1, '{{"plan":[9,"pro"],"city":[5,"Rome"]}}', now()),
    ('{YOUNGER}', '{WORKSPACE}', '{OLDER}', 0, '{{"plan":[9,"pro"]}}', now()),
    ('{ALONE}', '{WORKSPACE}', NULL, 0, '', now());
INSERT INTO identifiers (workspace_id, type, value, profile_id, origin_profile_id) VALUES
    ('{WORKSPACE}', 'anonymous_id', 'a', '{OLDER}', '{OLDER}'),
    ('{WORKSPACE}', 'user_id', 'u', '{OLDER}', '{YOUNGER}'),
    ('{WORKSPACE}', 'email', 'e', '{ALONE}', '{ALONE}');
INSERT INTO merges (workspace_id, canonical_profile_id, merged_profile_id, message_id, merge_time)
    VALUES ('{WORKSPACE}', '{OLDER}', '{YOUNGER}', 'm1', now());
"""


async def test_a_graph_of_the_first_schema_goes_on(
    postgres_server: PostgresServer, fresh_nats: NatsServer, tmp_path: Path, client: Client
) -> None:
    url = await filled(postgres_server, "0001", FILLING)

    with ServiceProcess("identity", {"CDI_NATS_URL": fresh_nats.url, "CDI_DATABASE_URL": url}, tmp_path / "identity") as identity:
        stub = client(identity)
        both = await profile_of(stub, YOUNGER)
        assert both is not None
        assert (both.profile_id, names(both)) == (OLDER, {"anonymous_id:a", "user_id:u"})
        assert json.loads(both.traits) == {"plan": "pro", "city": "Rome"}
        known, extended = await resolve(
            stub, seen("anonymous_id:a", "user_id:u"), seen("user_id:u", "email:e", traits=b'{"city":"Oslo"}', second=1)
        )
        assert known.profile_id == extended.profile_id == OLDER
        assert list(extended.merged_profile_ids) == [ALONE]
        request = SplitProfileRequest(workspace_id=WORKSPACE, profile_id=OLDER, merged_profile_id=YOUNGER, request_id="r1")
        answer = await stub.SplitProfile(request, timeout=10)
        assert (names(answer.remaining), names(answer.separated)) == ({"anonymous_id:a", "email:e"}, {"user_id:u"})
        assert json.loads(answer.separated.traits) == {"plan": "pro"}
        explained = await stub.ExplainProfile(ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=OLDER))
        assert len(explained.decisions) == 2
        identity.stop()


# Before identifiers were found by a hash: a decision added two of them, and an operator took one away from there.
BEFORE_THE_HASH = f"""
INSERT INTO profiles (profile_id, workspace_id, merges, traits, create_time) VALUES
    ('{OLDER}', '{WORKSPACE}', 0, '', now()), ('{YOUNGER}', '{WORKSPACE}', 0, '', now());
INSERT INTO decisions (decide_time, profile_id, rules_version, kind, message_id, event_type) VALUES
    (now(), '{OLDER}', 0, 1, 'm1', 'identify'), (now(), '{OLDER}', 0, 5, 'r1', 'split_profile');
UPDATE decisions SET detail = '' WHERE kind = 5;
INSERT INTO identifiers (workspace_id, type, value, profile_id, decision_id) VALUES
    ('{WORKSPACE}', 'user_id', 'u', '{OLDER}', 1), ('{WORKSPACE}', 'email', 'e', '{YOUNGER}', 1);
INSERT INTO separations VALUES ('{OLDER}', '{YOUNGER}', 2), ('{YOUNGER}', '{OLDER}', 2);
"""


async def test_what_was_taken_before_the_hash_is_still_explained_and_nothing_is_there_twice(
    postgres_server: PostgresServer, fresh_nats: NatsServer, tmp_path: Path, client: Client
) -> None:
    url = await filled(postgres_server, "0003", BEFORE_THE_HASH)
    again = f"INSERT INTO identifiers (workspace_id, type, value, profile_id) VALUES ('{WORKSPACE}', 'email', 'e', '{OLDER}')"
    connection = await asyncpg.connect(url)
    with pytest.raises(asyncpg.ExclusionViolationError):
        await connection.execute(again)
    await connection.execute(again.replace("'email'", "'phone'"))
    await connection.close()
    with ServiceProcess("identity", {"CDI_NATS_URL": fresh_nats.url, "CDI_DATABASE_URL": url}, tmp_path / "identity") as identity:
        stub = client(identity)
        explained = await stub.ExplainProfile(ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=OLDER))
        assert [sorted(item.value for item in decision.identifiers) for decision in explained.decisions] == [[], ["e", "u"]]
        user, taken = await resolve(stub, seen("user_id:u"), seen("email:e"))
        assert (user.profile_id, taken.profile_id) == (OLDER, YOUNGER)


async def filled(postgres: PostgresServer, revision: str, filling: str) -> str:
    """A database with rows of an old schema, brought to the newest one; returns its URL."""
    url = postgres.create_database(new_database_name())
    async with connection_of(url) as connection:
        await connection.run_sync(schema_up_to, revision)
        await connection.commit()
    old = await asyncpg.connect(url)
    await old.execute(filling)
    await old.close()
    await upgrade(url, MIGRATIONS)
    return url


def schema_up_to(connection: Connection, last: str) -> None:
    """Does the migrations up to a revision."""
    folder = folder_of(MIGRATIONS)
    script = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for revision in reversed(list(script.iterate_revisions(last, "base"))):
            revision.module.upgrade()
    context.stamp(script, last)
