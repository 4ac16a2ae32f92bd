"""Privacy requests beside a real identity, over the real bus, with services that report as the real ones do."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cdi.consent.v1 import consent_service_pb2, privacy_pb2, purpose_pb2
from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_consent.fulfilling import LOOKUPS, MOVES
from cdi_runtime.bus import connect
from cdi_testing import eventually
from cdi_testing.plugin import MigratedDatabases
from tests.component.consent.offices import OTHERS, SETTINGS, TOKEN, Graph, Id, Office, Services, office, running, step

ERASE, DELETE, SUPPRESS, UNSUPPRESS, ACCESS = 1, 2, 5, 6, 7


@dataclass
class Stand:
    """All that runs, and one workspace with its ids."""

    consent: ServiceProcess
    office: Office
    graph: Graph
    services: Services

    @property
    def workspace(self) -> str:
        return self.office.workspace

    @property
    def ada(self) -> Id:
        return "user_id", f"ada-{self.workspace}"

    @property
    def phone(self) -> Id:
        return "anonymous_id", f"phone-{self.workspace}"

    @property
    def mail(self) -> Id:
        return "email", f"{self.workspace}@example.com"


@pytest.fixture(scope="module")
def processes(
    module_nats: NatsServer, migrated_database: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    directory = tmp_path_factory.mktemp("privacy")
    common = {"CDI_NATS_URL": module_nats.url, "CDI_TRACE_SAMPLE_RATIO": "0"}
    with ServiceProcess("identity", common | {"CDI_DATABASE_URL": migrated_database("identity")}, directory) as identity:
        own = {"CDI_DATABASE_URL": migrated_database("consent"), "CDI_IDENTITY_TARGET": identity.grpc}
        with ServiceProcess("consent", common | own | SETTINGS | {"CDI_HTTP_ADDRESS": "127.0.0.1:0"}, directory) as consent:
            yield consent, identity


@pytest.fixture(scope="module")
async def told(processes: tuple[ServiceProcess, ServiceProcess], module_nats: NatsServer) -> AsyncIterator[Services]:
    async with connect(module_nats.url, "test") as bus, running(Services(processes[0].grpc), bus) as services:
        yield services


@pytest.fixture
async def stand(processes: tuple[ServiceProcess, ServiceProcess], told: Services) -> AsyncIterator[Stand]:
    consent, identity = processes
    async with office(consent.grpc) as desk, grpc.aio.insecure_channel(identity.grpc) as to_identity:
        purpose = purpose_pb2.Purpose(workspace_id=desk.workspace, name="ads")
        await eventually(desk.is_there)
        await desk.consent.ApplyPurpose(consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
        yield Stand(consent, desk, Graph(IdentityServiceStub(to_identity)), told)


async def decide(desk: Office, *ids: tuple[str, str]) -> None:
    decisions = [
        purpose_pb2.Decision(
            workspace_id=desk.workspace,
            subject_type=kind,
            subject_id=one,
            purpose="ads",
            granted=True,
            proof=f"form-{desk.workspace}",
            signal=f"signal-{desk.workspace}".encode(),
        )
        for kind, one in ids
    ]
    answer = await desk.consent.RecordDecisions(consent_service_pb2.RecordDecisionsRequest(decisions=decisions))
    assert {result.status.code for result in answer.results} == {0}


async def everything(consent: ServiceProcess) -> str:
    """All tables of consent's database as text."""
    connection = await asyncpg.connect(consent.environment["CDI_DATABASE_URL"])
    try:
        tables = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        found = []
        for table in tables:
            rows = await connection.fetch(f"SELECT t::text, to_jsonb(t)::text FROM {table} AS t")
            # bytea shows as hexadecimal; what stands in it counts too.
            blobs = [
                bytes(value).decode(errors="replace")
                for row in await connection.fetch(f"SELECT * FROM {table}")
                for value in row.values()
                if isinstance(value, bytes)
            ]
            found += [table, *(text for row in rows for text in row), *blobs]
        return "\n".join(found)
    finally:
        await connection.close()


async def test_an_erasure_reaches_all_ids_and_leaves_nothing_but_proof(stand: Stand) -> None:
    desk = stand.office
    profile_id = await stand.graph.seen(stand.workspace, stand.ada, stand.phone, stand.mail)
    await decide(desk, stand.ada, stand.phone, ("user_id", "bob"))
    assert f"form-{stand.workspace}" in await everything(stand.consent)
    before_us, generation = time.time_ns() // 1_000, await desk.tombstones()
    [request_id] = await desk.ask(ERASE, [stand.phone])
    assert await desk.suppressed(stand.phone) == [True]
    await eventually(lambda: desk.is_finished(request_id))
    assert await desk.suppressed(stand.ada, stand.phone, ("user_id", "bob")) == [True, True, False]
    first, second = stand.services.of(stand.workspace)
    assert {(one.type, one.id) for one in first.subjects} == {stand.ada, stand.phone, stand.mail}
    assert (list(first.profile_ids), first.attempt, second.attempt) == ([profile_id], 1, 2)
    assert (sorted(first.services), first.at_destinations, first.order_time) == (sorted(OTHERS), True, second.order_time)
    assert first.order_time.ToMicroseconds() >= before_us
    # What was judged before can be told from what is judged by these tombstones.
    assert generation < first.tombstone_generation <= await desk.tombstones()
    request = await desk.get(request_id)
    counts = {(one.service, one.store): (one.count, one.attempts) for one in request.steps}
    assert counts == {(service, "rows"): (3, 2) for service in OTHERS} | {
        ("consent", "ledger"): (2, 2),
        ("consent", "current_decisions"): (2, 2),
        ("consent", "tombstones"): (4, 2),
    }
    assert not request.subjects
    assert len(request.subject_digests) == 4
    assert (request.deadline_time.seconds - request.create_time.seconds) == 30 * 86_400
    await eventually(lambda: _without_trace(stand.consent, stand.ada[1]))
    text = await everything(stand.consent)
    # Bob's line has the same signal: it stays.
    assert [word for word in (stand.ada[1], stand.phone[1], stand.mail[1], profile_id) if word in text] == []
    assert f"signal-{stand.workspace}" in text
    verified = await desk.consent.VerifyLedger(consent_service_pb2.VerifyLedgerRequest(workspace_id=stand.workspace))
    assert (verified.lines, verified.subjects, len(verified.breaks)) == (3, 3, 0)


async def _without_trace(consent: ServiceProcess, word: str) -> bool:
    return word not in await everything(consent)


async def test_a_signal_goes_with_its_last_line(stand: Stand) -> None:
    await decide(stand.office, stand.ada)
    [request_id] = await stand.office.ask(DELETE, [stand.ada])
    await eventually(lambda: stand.office.is_finished(request_id))
    await eventually(lambda: _without_trace(stand.consent, f"signal-{stand.workspace}"))
    assert f"form-{stand.workspace}" not in await everything(stand.consent)
    # The same id comes again, decides again, and is erased again.
    await decide(stand.office, stand.ada)
    [again] = await stand.office.ask(DELETE, [stand.ada])
    await eventually(lambda: stand.office.is_finished(again))
    verified = await stand.office.consent.VerifyLedger(consent_service_pb2.VerifyLedgerRequest(workspace_id=stand.workspace))
    assert (verified.lines, verified.subjects, len(verified.breaks)) == (2, 2, 0)


async def test_events_from_before_an_erasure_are_suppressed_whenever_they_come_and_later_ones_are_not(stand: Stand) -> None:
    desk = stand.office
    await stand.graph.seen(stand.workspace, stand.ada, stand.phone)
    before_us = time.time_ns() // 1_000
    [request_id] = await desk.ask(DELETE, [stand.ada])
    await eventually(lambda: desk.is_finished(request_id))
    assert await desk.suppressed(stand.ada, stand.phone, received_us=before_us) == [True, True]
    assert await desk.suppressed(stand.ada, stand.phone) == [False, False]
    assert await desk.suppressed(stand.ada, received_us=time.time_ns() // 1_000) == [False]


async def test_suppressed_events_record_nothing_and_unsuppression_reaches_the_same_ids(stand: Stand) -> None:
    desk = stand.office
    await stand.graph.seen(stand.workspace, stand.ada, stand.phone)
    [request_id] = await desk.ask(SUPPRESS, [stand.ada])
    await eventually(lambda: desk.is_finished(request_id))
    assert await desk.suppressed(stand.ada, stand.phone) == [True, True]
    preferences = [consent_service_pb2.CategoryPreference(category="ads", granted=True)]
    given = consent_service_pb2.ConsentInput(
        workspace_id=stand.workspace, message_id="m", user_id=stand.ada[1], anonymous_id="new", preferences=preferences
    )
    (result,) = (await desk.consent.EvaluateConsent(consent_service_pb2.EvaluateConsentRequest(inputs=[given]))).results
    assert (result.suppressed, result.linkable, list(result.granted_purposes), list(result.decision_ids)) == (True, False, [], [])
    asked = consent_service_pb2.ListDecisionsRequest(workspace_id=stand.workspace, subject_type="anonymous_id", subject_id="new")
    assert not (await desk.consent.ListDecisions(asked)).decisions
    assert [list(order.services) for order in stand.services.of(stand.workspace)] == [[]]
    [lifted] = await desk.ask(UNSUPPRESS, [stand.phone])
    await eventually(lambda: desk.is_finished(lifted))
    assert await desk.suppressed(stand.ada, stand.phone) == [False, False]


async def test_while_identity_is_away_a_request_waits_and_says_so(stand: Stand, processes: tuple[ServiceProcess, ServiceProcess]) -> None:
    desk = stand.office
    await stand.graph.seen(stand.workspace, stand.ada, stand.phone)
    [request_id] = await desk.ask(ERASE, [stand.ada])
    await eventually(lambda: desk.is_finished(request_id))
    processes[1].kill()
    [waiting] = await desk.ask(UNSUPPRESS, [stand.ada])
    assert await desk.suppressed(stand.ada, stand.phone) == [False, True]
    await eventually(lambda: _lookups(desk, waiting))
    processes[1].start()
    # Also the ids come back of which identity, had it erased the profile, would know nothing any more.
    await eventually(lambda: desk.is_finished(waiting))
    assert await desk.suppressed(stand.ada, stand.phone) == [False, False]


async def _lookups(desk: Office, request_id: str) -> bool:
    request = await desk.get(request_id)
    steps = [(one.service, one.store, one.detail) for one in request.steps if one.attempts >= 2]
    return request.status == privacy_pb2.PRIVACY_STATUS_INITIALIZED and steps == [("identity", "lookup", "identity does not answer")]


async def test_what_a_store_cannot_do_and_what_it_refuses(stand: Stand) -> None:
    desk, refusing = stand.office, [True]

    def router(order: privacy_pb2.PrivacyOrder) -> list[privacy_pb2.PrivacyStep]:
        cannot = step("destination:old", privacy_pb2.PRIVACY_STATUS_NOT_SUPPORTED, detail="no delete call")
        failed = step("destination:crm", privacy_pb2.PRIVACY_STATUS_FAILED, detail="answered 403")
        return [cannot, failed if refusing[0] else step("destination:crm", count=1)]

    stand.services.does[stand.workspace] = {"router": router}
    [request_id] = await desk.ask(DELETE, [stand.ada])
    await eventually(lambda: _has_status(desk, request_id, "FAILED"))
    request = await desk.get(request_id)
    assert [one.id for one in request.subjects] == [stand.ada[1]]
    report = await desk.privacy.GetPrivacyReport(pb.GetPrivacyReportRequest(workspace_id=stand.workspace, request_id=request_id))
    assert json.loads(report.report)["status"] == "FAILED"
    refusing[0] = False
    retried = await desk.privacy.RetryPrivacyRequest(pb.RetryPrivacyRequestRequest(workspace_id=stand.workspace, request_id=request_id))
    assert retried.request.status == privacy_pb2.PRIVACY_STATUS_RUNNING
    await eventually(lambda: _has_status(desk, request_id, "PARTIAL_SUCCESS"))
    assert list(stand.services.of(stand.workspace)[-1].services) == ["router"]
    assert not (await desk.get(request_id)).subjects
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.privacy.RetryPrivacyRequest(pb.RetryPrivacyRequestRequest(workspace_id=stand.workspace, request_id=request_id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def _has_status(desk: Office, request_id: str, status: str) -> bool:
    return await desk.status(request_id) == status


async def test_what_a_service_still_has_to_do_is_shown_and_waited_for(stand: Stand) -> None:
    """As a destination that is down: the service has the calls, and says how far they are until they are made."""
    desk = stand.office

    def begins(order: privacy_pb2.PrivacyOrder) -> Any:
        calls = step("destination:crm", privacy_pb2.PRIVACY_STATUS_RUNNING, 1, "status 503")
        return [step("rows", count=2), calls if order.attempt == 1 else step("destination:crm", count=1)]

    stand.services.does[stand.workspace] = {"router": begins}
    [request_id] = await desk.ask(ERASE, [stand.ada])

    async def shown() -> dict[str, tuple[int, int, str]]:
        found = (await desk.get(request_id)).steps
        return {one.store: (one.status, one.count, one.detail) for one in found if one.service == "router"}

    waiting = privacy_pb2.PRIVACY_STATUS_RUNNING
    await eventually(lambda: _is(shown(), {"destination:crm": (waiting, 1, "status 503"), "rows": (waiting, 2, "")}))
    assert [order.attempt for order in stand.services.of(stand.workspace)] == [1]
    done = [step("rows", count=2), step("destination:crm", count=3)]
    await desk.privacy.ReportSteps(pb.ReportStepsRequest(request_id=request_id, service="router", attempt=1, steps=done))
    await eventually(lambda: desk.is_finished(request_id))
    finished = privacy_pb2.PRIVACY_STATUS_FINISHED
    assert await shown() == {"destination:crm": (finished, 4, ""), "rows": (finished, 4, "")}
    assert [order.attempt for order in stand.services.of(stand.workspace)] == [1, 2]


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


async def test_a_service_that_does_not_answer_is_told_again(stand: Stand) -> None:
    told: list[int] = []

    def late(order: privacy_pb2.PrivacyOrder) -> list[privacy_pb2.PrivacyStep] | None:
        told.append(order.attempt)
        return [step("rows", count=order.attempt)] if len(told) > 2 else None

    stand.services.does[stand.workspace] = {"identity": late}
    with impatient(stand.consent):
        await eventually(stand.office.is_there)
        [request_id] = await stand.office.ask(DELETE, [stand.ada])
        await eventually(lambda: stand.office.is_finished(request_id))
    await eventually(stand.office.is_there)
    assert told == [1, 2, 3, 4]
    assert [list(order.services) for order in stand.services.of(stand.workspace)[1:3]] == [["identity"], ["identity"]]
    steps = {one.service: one for one in (await stand.office.get(request_id)).steps if one.store == "rows"}
    assert (steps["identity"].attempts, steps["identity"].count, steps["router"].attempts) == (4, 7, 2)


@contextmanager
def impatient(consent: ServiceProcess) -> Iterator[None]:
    """Tells again after two seconds, where the others wait as long as consent does by itself: busy services would be told too often."""
    consent.environment["CDI_PRIVACY_RETELL_SECONDS"] = "2"
    consent.restart()
    try:
        yield
    finally:
        del consent.environment["CDI_PRIVACY_RETELL_SECONDS"]
        consent.restart()


async def test_the_report_is_signed_and_names_nobody(stand: Stand) -> None:
    desk = stand.office
    profile_id = await stand.graph.seen(stand.workspace, stand.ada, stand.mail)
    [request_id] = await desk.ask(DELETE, [stand.ada], regulation="us")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.privacy.GetPrivacyReport(pb.GetPrivacyReportRequest(workspace_id=stand.workspace, request_id=request_id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await eventually(lambda: desk.is_finished(request_id))
    report = await desk.privacy.GetPrivacyReport(pb.GetPrivacyReportRequest(workspace_id=stand.workspace, request_id=request_id))
    key = load_pem_public_key(report.public_key.encode())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(report.signature, report.report)
    with pytest.raises(InvalidSignature):
        key.verify(report.signature, report.report.replace(b"FINISHED", b"FAILED"))
    content = json.loads(report.report)
    assert (content["request_id"], content["verb"], content["regulation"]) == (request_id, "DELETE_ONLY", "us")
    assert sum(one["count"] for one in content["steps"]) == 3 * len(OTHERS)
    assert not any(word in report.report.decode() for word in (stand.ada[1], stand.mail[1], profile_id))
    # The key is kept: a restart signs with the same.
    stand.consent.restart()
    await eventually(desk.is_there)
    [other] = await desk.ask(SUPPRESS, [stand.ada])
    await eventually(lambda: desk.is_finished(other))
    later = await desk.privacy.GetPrivacyReport(pb.GetPrivacyReportRequest(workspace_id=stand.workspace, request_id=other))
    assert later.public_key == report.public_key


async def test_access_gives_one_archive_of_everything(stand: Stand) -> None:
    desk = stand.office
    await decide(desk, stand.ada)
    rows = [json.dumps({"n": number, "text": 'a,"b"\n', "deep": {"x": [1]}}).encode() for number in range(1_500)]
    stand.services.holdings[stand.workspace] = {"identity": [b'{"plan": "pro"}', b'{\n "vip": true}'], "warehouse-loader": rows}
    [request_id] = await desk.ask(ACCESS, [stand.ada])
    await eventually(lambda: desk.is_finished(request_id))
    with zipfile.ZipFile(io.BytesIO(await desk.download(request_id))) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        lines = archive.read("warehouse-loader/rows.jsonl").splitlines()
        assert [json.loads(line) for line in lines] == [json.loads(row) for row in rows]
        assert archive.read("identity/rows.csv").decode().splitlines() == ["plan,vip", "pro,", ",true"]
        decision = json.loads(archive.read("consent/decisions.jsonl"))
        assert (decision["subject_id"], decision["granted"], decision["signal"]) == (stand.ada[1], True, f"signal-{stand.workspace}")
        counts = {one["name"]: one["rows"] for one in manifest["files"]}
        assert counts["warehouse-loader/rows.csv"] == counts["warehouse-loader/rows.jsonl"] == 1_500
        assert set(counts) == set(archive.namelist()) - {"manifest.json"}
    assert stand.services.of(stand.workspace)[0].verb == ACCESS
    assert await desk.suppressed(stand.ada) == [False]
    connection = await asyncpg.connect(stand.consent.environment["CDI_DATABASE_URL"])
    try:
        await connection.execute("UPDATE privacy_requests SET expire_time = now() WHERE request_id = $1", request_id)
    finally:
        await connection.close()
    stand.consent.restart()
    await eventually(desk.is_there)
    await eventually(lambda: _is_gone(desk, request_id))
    assert stand.ada[1] not in "".join(line for line in (await everything(stand.consent)).splitlines() if request_id in line)


async def _is_gone(desk: Office, request_id: str) -> bool:
    try:
        await desk.download(request_id)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return False


async def test_only_officers_may_ask(stand: Stand) -> None:
    async with office(stand.consent.grpc, token="other") as stranger:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.ask(DELETE, [stand.ada])
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.download("01890000-0000-7000-8000-000000000000")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_refused_and_what_is_asked_twice(stand: Stand) -> None:
    desk = stand.office
    first = await desk.ask(SUPPRESS, [stand.ada], [], [("user_id", "x\0")], [stand.phone], client_request_id="ticket-7")
    assert [bool(one) for one in first] == [True, False, False, True]
    assert await desk.ask(SUPPRESS, [stand.ada], [], [("user_id", "x\0")], [stand.phone], client_request_id="ticket-7") == first
    listed = await desk.privacy.ListPrivacyRequests(pb.ListPrivacyRequestsRequest(workspace_id=stand.workspace, page_size=1))
    rest = await desk.privacy.ListPrivacyRequests(
        pb.ListPrivacyRequestsRequest(workspace_id=stand.workspace, page_token=listed.next_page_token)
    )
    assert sorted(one.request_id for one in (*listed.requests, *rest.requests)) == sorted(filter(None, first))
    wrong: list[tuple[Any, grpc.StatusCode]] = [
        (desk.ask(0, [stand.ada]), grpc.StatusCode.INVALID_ARGUMENT),
        (desk.ask(99, [stand.ada]), grpc.StatusCode.INVALID_ARGUMENT),
        (desk.ask(DELETE), grpc.StatusCode.INVALID_ARGUMENT),
        (desk.ask(DELETE, *[[stand.ada]] * 5_001), grpc.StatusCode.INVALID_ARGUMENT),
        (desk.ask(DELETE, [stand.ada], regulation="fr"), grpc.StatusCode.INVALID_ARGUMENT),
        (desk.get("nonsense"), grpc.StatusCode.NOT_FOUND),
        (desk.get("01890000-0000-7000-8000-000000000000"), grpc.StatusCode.NOT_FOUND),
    ]
    for call, code in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is code
    report = pb.ReportStepsRequest(request_id=first[0], service="router", attempt=1, steps=[step("rows")])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.privacy.ReportSteps(report)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_ledger_allows_an_erasure_and_nothing_else(stand: Stand) -> None:
    await decide(stand.office, stand.ada)
    connection = await asyncpg.connect(stand.consent.environment["CDI_DATABASE_URL"])
    erased = "subject_id = 'erased:x', proof = '', salt = NULL"
    refused = [
        "UPDATE ledger SET granted = false",
        "UPDATE ledger SET subject_id = 'eve'",
        "UPDATE ledger SET subject_id = 'erased:x'",
        f"UPDATE ledger SET {erased}, signal_digest = NULL",
        f"UPDATE ledger SET {erased}, granted = false",
        f"UPDATE ledger SET {erased}, hash = ''",
        f"UPDATE ledger SET {erased}, decide_time = now()",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "UPDATE signals SET content = ''",
        "TRUNCATE signals",
    ]
    try:
        for statement in refused:
            where = "" if "TRUNCATE" in statement or "signals" in statement else f" WHERE subject_id = '{stand.ada[1]}'"
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(statement + where)
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("DELETE FROM signals WHERE content = $1", f"signal-{stand.workspace}".encode())
        await connection.execute(f"UPDATE ledger SET {erased} WHERE subject_id = '{stand.ada[1]}'")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("UPDATE ledger SET subject_id = 'erased:y' WHERE subject_id = 'erased:x'")
    finally:
        await connection.close()


async def test_a_crash_at_any_step_costs_nothing(stand: Stand) -> None:
    desk, killed = stand.office, [0]

    def killing(order: privacy_pb2.PrivacyOrder) -> list[privacy_pb2.PrivacyStep]:
        if killed[0] < order.attempt:
            killed[0] = order.attempt
            stand.consent.kill()
            stand.consent.launch()
        return [step("rows", count=1)]

    stand.services.does[stand.workspace] = {"enrichment": killing}
    await stand.graph.seen(stand.workspace, stand.ada, stand.phone)
    await decide(desk, stand.ada, stand.phone)
    [request_id] = await desk.ask(ERASE, [stand.ada])
    stand.consent.kill()
    stand.consent.start()
    await eventually(lambda: _is_finished_somehow(desk, request_id), within=90)
    assert killed[0] >= 2
    counts = {(one.service, one.store): one.count for one in (await desk.get(request_id)).steps}
    assert (counts["consent", "ledger"], counts["router", "rows"]) == (2, 3)
    assert await desk.suppressed(stand.ada, stand.phone) == [True, True]
    verified = await desk.consent.VerifyLedger(consent_service_pb2.VerifyLedgerRequest(workspace_id=stand.workspace))
    assert (verified.lines, len(verified.breaks)) == (2, 0)


async def _is_finished_somehow(desk: Office, request_id: str) -> bool:
    try:
        return await desk.is_finished(request_id)
    except grpc.aio.AioRpcError:
        return False


async def test_hundreds_of_requests_in_one_run_do_not_stop_the_flow(stand: Stand) -> None:
    """More than are looked up together, and many times what is done in one transaction."""
    desk, slowest = stand.office, [0.0]
    people = [("user_id", f"u{number}") for number in range(LOOKUPS + MOVES)]
    await decide(desk, *people)

    async def flow() -> None:
        while True:
            started = time.monotonic()
            await desk.suppressed(*[("user_id", f"other-{number}") for number in range(500)])
            slowest[0] = max(slowest[0], time.monotonic() - started)
            await asyncio.sleep(0.05)

    stand.services.calm.add(stand.workspace)
    flowing = asyncio.create_task(flow())
    started = time.monotonic()
    try:
        requests = await desk.ask(ERASE, *[[person] for person in people])
        assert await desk.suppressed(*people) == [True] * len(people)
        told = time.monotonic() - started
        await eventually(lambda: _all_finished(desk, len(requests)), within=200)
    finally:
        flowing.cancel()
    whole = time.monotonic() - started
    took = f"answered after {told:.1f} s, done after {whole:.1f} s; slowest batch of the flow {slowest[0]:.2f} s"
    print(took)  # noqa: T201 - shown with -s
    assert slowest[0] < whole / 2, took
    verified = await desk.consent.VerifyLedger(consent_service_pb2.VerifyLedgerRequest(workspace_id=stand.workspace))
    assert (verified.lines, len(verified.breaks)) == (len(people), 0)


async def _all_finished(desk: Office, number: int) -> bool:
    asked = pb.ListPrivacyRequestsRequest(workspace_id=desk.workspace, status=privacy_pb2.PRIVACY_STATUS_FINISHED, page_size=1_000)
    return len((await desk.privacy.ListPrivacyRequests(asked)).requests) == number


async def test_the_endpoint_takes_and_shows_requests(stand: Stand) -> None:
    async def call(method: str, path: str, body: str = "", token: str = TOKEN) -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection(*stand.consent.addresses["http"].split(":"))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        answer = (await reader.read()).decode()
        writer.close()
        return int(answer.split(" ")[1]), json.loads(answer.partition("\r\n\r\n")[2])

    person = {"subjects": [{"type": "user_id", "id": stand.ada[1]}]}
    body = json.dumps({"workspace_id": stand.workspace, "verb": "PRIVACY_VERB_SUPPRESS_ONLY", "people": [person]})
    status, answer = await call("POST", "/v1/privacy/requests", body)
    assert status == 200
    path = f"/v1/privacy/requests/{answer['results'][0]['request_id']}?workspace={stand.workspace}"
    status, answer = await call("GET", path)
    assert (status, answer["request"]["verb"]) == (200, "PRIVACY_VERB_SUPPRESS_ONLY")
    assert await stand.office.suppressed(stand.ada) == [True]
    assert (await call("GET", path, token="other"))[0] == 401
    assert (await call("GET", path.replace("?workspace=", "?workspace=x")))[0] == 404
    assert (await call("POST", "/v1/privacy/requests", "{"))[0] == 400
    assert (await call("POST", "/v1/privacy/requests", json.dumps({"verb": "PRIVACY_VERB_ACCESS"})))[0] == 400
    assert (await call("DELETE", path))[0] == 405
    assert (await call("GET", "/v2"))[0] == 404
