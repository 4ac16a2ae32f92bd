"""Old decisions that changed nothing are deleted, and only those."""

import asyncpg
import grpc
import pytest

from cdi.identity.v1.identity_service_pb2 import ExplainProfileRequest, ExplainResolutionRequest
from cdi.identity.v1.rules_pb2 import DECISION_KIND_CREATED, DECISION_KIND_MATCHED
from cdi_cli.embedded import ServiceProcess
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import StartService

from .conftest import Client
from .identity_calls import resolve, seen

MANY = 12_000
"""More than two transactions delete."""


async def test_decisions_that_only_left_identifiers_out_are_deleted_when_they_are_old(start_service: StartService, client: Client) -> None:
    identity: ServiceProcess = start_service("identity", {"CDI_DEMOTION_DAYS": "30"})
    stub = client(identity)
    await resolve(stub, seen("user_id:u1", "anonymous_id:kiosk", message_id="old-made"), seen("user_id:u2", message_id="made"))
    await resolve(stub, seen("user_id:u2", "anonymous_id:kiosk", message_id="old-left-out"))
    [young] = await resolve(stub, seen("user_id:u2", "anonymous_id:kiosk", message_id="left-out"))
    connection = await asyncpg.connect(identity.environment["CDI_DATABASE_URL"])
    await connection.execute(
        "INSERT INTO decisions (decide_time, profile_id, rules_version, kind, message_id, event_type)"
        " SELECT now(), profile_id, 0, 4, 'old-' || n, 'track' FROM decisions, generate_series(1, $1::int) n WHERE message_id = 'left-out'",
        MANY,
    )
    await connection.execute("UPDATE decisions SET decide_time = now() - interval '31 days' WHERE message_id LIKE 'old-%'")
    identity.restart()

    async def deleted() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = 3 FROM decisions"))

    await eventually(deleted)
    await connection.close()
    stub = client(identity)
    explained = await stub.ExplainProfile(ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=young.profile_id))
    assert [(item.triggering_event_id, item.kind) for item in explained.decisions] == [
        ("left-out", DECISION_KIND_MATCHED),
        ("made", DECISION_KIND_CREATED),
    ]
    with pytest.raises(grpc.aio.AioRpcError) as nothing:
        await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE, message_id="old-left-out"))
    assert nothing.value.code() is grpc.StatusCode.NOT_FOUND
    [again] = await resolve(stub, seen("user_id:u2", "anonymous_id:kiosk", message_id="old-left-out"))
    assert again.profile_id == young.profile_id
    found = await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE, message_id="old-left-out"))
    assert found.decision.kind == DECISION_KIND_MATCHED
