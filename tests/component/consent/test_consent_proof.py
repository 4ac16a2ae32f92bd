"""Policies, signals, explanations, and the chain of the ledger, over real Postgres."""

import runpy
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import purpose_pb2
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_testing.builders import message_id
from cdi_testing.plugin import StartService

Client = Callable[[ServiceProcess], ConsentServiceStub]


class Desk:
    """One workspace, and what its tests ask of consent."""

    def __init__(self, stub: ConsentServiceStub) -> None:
        self.stub = stub
        self.workspace = f"ws-{message_id()}"

    async def purpose(self, name: str, **fields: Any) -> purpose_pb2.Purpose:
        purpose = purpose_pb2.Purpose(workspace_id=self.workspace, name=name, **fields)
        return (await self.stub.ApplyPurpose(pb.ApplyPurposeRequest(purpose=purpose))).purpose

    async def policy(self, default: int, **regional: int) -> pb.ApplyConsentPolicyResponse:
        regions = [purpose_pb2.RegionalDefault(region=region, default_policy=policy) for region, policy in regional.items()]
        policy = purpose_pb2.ConsentPolicy(workspace_id=self.workspace, default_policy=default, regional_defaults=regions)
        return await self.stub.ApplyConsentPolicy(pb.ApplyConsentPolicyRequest(policy=policy))

    async def evaluate(self, user_id: str = "ada", second: int = 0, **fields: Any) -> pb.EvaluatedConsent:
        values = {"workspace_id": self.workspace, "message_id": message_id(), "user_id": user_id, "event_time": Timestamp(seconds=second)}
        request = pb.EvaluateConsentRequest(inputs=[pb.ConsentInput(**(values | fields))])
        return (await self.stub.EvaluateConsent(request)).results[0]

    async def record(self, *answers: tuple[str, bool], second: int = 1, purpose: str = "ads") -> None:
        decisions = [
            purpose_pb2.Decision(
                workspace_id=self.workspace,
                subject_type="user_id",
                subject_id=user_id,
                purpose=purpose,
                granted=granted,
                decide_time=Timestamp(seconds=second),
                proof="form",
                signal=b"scan 7",
            )
            for user_id, granted in answers
        ]
        results = (await self.stub.RecordDecisions(pb.RecordDecisionsRequest(decisions=decisions))).results
        assert {result.status.code for result in results} == {0}

    async def ledger(self, user_id: str = "ada") -> list[purpose_pb2.Decision]:
        request = pb.ListDecisionsRequest(workspace_id=self.workspace, subject_type="user_id", subject_id=user_id)
        return list((await self.stub.ListDecisions(request)).decisions)

    async def verify(self, user_id: str = "") -> pb.VerifyLedgerResponse:
        subject = pb.Subject(type="user_id", id=user_id) if user_id else None
        return await self.stub.VerifyLedger(pb.VerifyLedgerRequest(workspace_id=self.workspace, subject=subject))


@pytest.fixture
def desk(consent: ServiceProcess, client: Client) -> Desk:
    return Desk(client(consent))


async def test_the_policy_holds_where_a_purpose_says_nothing(desk: Desk) -> None:
    await desk.purpose("ads")
    await desk.purpose("own", default_policy=purpose_pb2.DEFAULT_POLICY_REQUIRE)
    assert not (await desk.evaluate()).granted_purposes
    first = await desk.policy(purpose_pb2.DEFAULT_POLICY_ALLOW, GDPR=purpose_pb2.DEFAULT_POLICY_REQUIRE)
    assert (first.changed, first.policy.version) == (True, 1)
    assert not (await desk.policy(purpose_pb2.DEFAULT_POLICY_ALLOW, GDPR=purpose_pb2.DEFAULT_POLICY_REQUIRE)).changed
    stored = (await desk.stub.GetConsentPolicy(pb.GetConsentPolicyRequest(workspace_id=desk.workspace))).policy
    assert stored == first.policy
    found = {region: await desk.evaluate(region=region) for region in ("", "US", "FR")}
    assert {region: list(one.granted_purposes) for region, one in found.items()} == {"": ["ads"], "US": ["ads"], "FR": []}
    assert found["FR"].region == "FR"


async def test_columns_of_a_denied_purpose_are_named(desk: Desk) -> None:
    await desk.purpose("ads", columns=["traits.email", "context.ip"])
    await desk.purpose("stats", columns=["context.ip"], default_policy=purpose_pb2.DEFAULT_POLICY_ALLOW)
    assert list((await desk.evaluate()).dropped_columns) == ["context.ip", "traits.email"]
    await desk.record(("ada", True))
    assert not (await desk.evaluate()).dropped_columns


async def test_what_a_purpose_says_of_warehouses_is_versioned_and_leaves_the_event_as_it_is(desk: Desk) -> None:
    rule = purpose_pb2.WarehouseRule(warehouse="main", rows=True, columns=["traits.email", "context.ip", "traits.email"])
    await desk.purpose("ads")
    await desk.purpose("ads", warehouses=[rule])
    await desk.purpose("ads", warehouses=[rule])
    [stored] = (await desk.stub.ListPurposes(pb.ListPurposesRequest(workspace_id=desk.workspace))).purposes
    expected = purpose_pb2.WarehouseRule(warehouse="main", rows=True, columns=["context.ip", "traits.email"])
    assert (list(stored.warehouses), stored.version) == ([expected], 2)
    assert not (await desk.evaluate()).dropped_columns


async def test_signals_are_answers_and_are_kept_as_they_were_sent(desk: Desk) -> None:
    await desk.purpose("ads", categories=["us.sale"], default_policy=purpose_pb2.DEFAULT_POLICY_ALLOW)
    signals = [
        pb.ConsentSignal(kind="gpc", raw=b"1"),
        pb.ConsentSignal(kind="other", raw=b"1"),
        pb.ConsentSignal(kind="tcf", raw=b"?"),
    ]
    denied = await desk.evaluate(signals=signals, has_preferences=True, second=5)
    assert not denied.granted_purposes
    (line,) = await desk.ledger()
    assert (line.granted, line.source, line.purpose_version) == (False, purpose_pb2.DECISION_SOURCE_EVENT, 1)
    assert line.signal == b'{"gpc":"1","other":"1","tcf":"?"}'
    assert list(denied.decision_ids) == [line.decision_id]


async def test_somebodys_consent_and_why(desk: Desk) -> None:
    await desk.purpose("ads")
    await desk.purpose("ads", description="changed")
    await desk.purpose("stats", default_policy=purpose_pb2.DEFAULT_POLICY_ALLOW)
    await desk.record(("ada", True))
    subject = pb.Subject(type="user_id", id="ada")
    states = (await desk.stub.GetConsent(pb.GetConsentRequest(workspace_id=desk.workspace, subject=subject))).purposes
    assert [(state.purpose, state.granted, len(state.decisions)) for state in states] == [("ads", True, 1), ("stats", True, 0)]
    assert states[0].decisions[0].purpose_version == 2
    event = await desk.evaluate("eve", preferences=[pb.CategoryPreference(category="ads", granted=False)], second=3)
    request = pb.ExplainDecisionRequest(workspace_id=desk.workspace, purposes=["ads"], decision_ids=[*event.decision_ids, "nonsense"])
    (state,) = (await desk.stub.ExplainDecision(request)).purposes
    assert (state.granted, state.purpose_version, state.decisions[0].decide_time.seconds) == (False, 2, 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.stub.ExplainDecision(pb.ExplainDecisionRequest(workspace_id=desk.workspace, purposes=["none"]))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_ledger_holds_and_says_where_it_does_not(desk: Desk, consent: ServiceProcess) -> None:
    await desk.purpose("ads")
    for second in range(1, 6):
        await desk.record(("ada", second % 2 == 0), ("bob", True), second=second)
    held = await desk.verify()
    assert (held.lines, held.subjects, len(held.breaks)) == (10, 2, 0)
    lines = list(reversed(await desk.ledger()))
    assert [line.chain_position for line in lines] == [1, 2, 3, 4, 5]
    assert [line.previous_hash for line in lines[1:]] == [line.hash for line in lines[:-1]]
    connection = await asyncpg.connect(consent.environment["CDI_DATABASE_URL"])
    try:
        await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
        await connection.execute("UPDATE ledger SET granted = NOT granted WHERE decision_id = $1", lines[1].decision_id)
        await connection.execute("DELETE FROM ledger WHERE decision_id = $1", lines[3].decision_id)
        await connection.execute("DELETE FROM ledger WHERE workspace_id = $1 AND subject_id = 'bob'", desk.workspace)
        await connection.execute("ALTER TABLE ledger ENABLE TRIGGER USER")
    finally:
        await connection.close()
    broken = await desk.verify()
    assert [(one.subject.id, one.chain_position, pb.LedgerFlaw.Name(one.flaw)) for one in broken.breaks] == [
        ("ada", 2, "LEDGER_FLAW_CHANGED"),
        ("ada", 4, "LEDGER_FLAW_MISSING"),
        ("bob", 1, "LEDGER_FLAW_MISSING"),
    ]
    assert len((await desk.verify("ada")).breaks) == 2


async def test_lines_from_before_the_chain_are_chained(database_url: str, start_service: StartService, client: Client) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await _first_schema(connection)
        await connection.execute("INSERT INTO purposes VALUES ('w', 'ads', 1, '', '{}', false, false)")
        await connection.execute(
            "INSERT INTO ledger SELECT gen_random_uuid(), 'w', 'user_id', 'u' || n % 7, 'ads', n % 2 = 0,"
            " to_timestamp(n), to_timestamp(1000 + n / 3), 'p' || n FROM generate_series(1, 12000) AS n"
        )
    finally:
        await connection.close()
    desk = Desk(client(start_service("consent", {"CDI_DATABASE_URL": database_url}, migrate=True)))
    desk.workspace = "w"
    held = await desk.verify()
    assert (held.lines, held.subjects, len(held.breaks)) == (12_000, 7, 0)
    await desk.record(("u1", True), second=99_999)
    held = await desk.verify("u1")
    assert (held.lines, len(held.breaks)) == (12_000 // 7 + 1 + 1, 0)
    (purpose,) = (await desk.stub.ListPurposes(pb.ListPurposesRequest(workspace_id="w"))).purposes
    assert purpose.default_policy == purpose_pb2.DEFAULT_POLICY_REQUIRE


async def _first_schema(connection: Any) -> None:
    """The database as the first migration leaves it."""
    first = files("cdi_consent.migrations") / "versions" / "0001_purposes_and_ledger.py"
    for statement in runpy.run_path(str(first))["STATEMENTS"]:
        await connection.execute(statement)
    await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await connection.execute("INSERT INTO alembic_version VALUES ('0001')")
